"""Queues before the model: who goes together, who is refused, and that one caller's trouble stays its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import pytest

from vtr_runtime.serve.batcher import Batcher, BusyError
from vtr_runtime.serve.decoding import Decoders

Result = TypeVar("Result")


class Work:
    """Doubles numbers when it is let go, and remembers what it was given together."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.go, self.busy = threading.Event(), threading.Event()

    def __call__(self, jobs: Sequence[int]) -> list[int]:
        self.batches.append(list(jobs))
        self.busy.set()
        assert self.go.wait(10)
        if 13 in jobs:
            raise RuntimeError("thirteen")
        return [2 * job for job in jobs]


def run_with(batcher: Batcher[int, int], body: Callable[[], Awaitable[Result]]) -> Result:
    async def run() -> Result:
        worker = asyncio.create_task(batcher.run())
        try:
            return await asyncio.wait_for(body(), 20)
        finally:
            worker.cancel()

    return asyncio.run(run())


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


def test_what_comes_during_a_pass_goes_together_in_the_next() -> None:
    work = Work()
    batcher = Batcher[int, int](work, most=4, wait=0, room=100)

    async def body() -> list[int]:
        first = asyncio.create_task(batcher.submit(1, 1))
        await until(work.busy.is_set)
        rest = [asyncio.create_task(batcher.submit(job, 1)) for job in range(2, 9)]
        await until(lambda: batcher.waiting == 7)
        work.go.set()
        return list(await asyncio.gather(first, *rest))

    assert run_with(batcher, body) == [2 * job for job in range(1, 9)]
    assert work.batches == [[1], [2, 3, 4, 5], [6, 7, 8]]
    assert batcher.waiting == 0


def test_a_lone_job_waits_for_others_and_a_full_batch_does_not() -> None:
    work = Work()
    work.go.set()
    batcher = Batcher[int, int](work, most=3, wait=0.2, room=100)

    async def body() -> tuple[float, float]:
        clock = asyncio.get_running_loop().time
        start = clock()
        await batcher.submit(1, 1)
        alone = clock() - start
        start = clock()
        await asyncio.gather(*(batcher.submit(job, 1) for job in (2, 3, 4)))
        return alone, clock() - start

    alone, full = run_with(batcher, body)
    assert alone >= 0.2 > full
    assert work.batches == [[1], [2, 3, 4]]


def test_sizes_bound_a_batch_and_a_large_job_goes_alone() -> None:
    work = Work()
    work.go.set()
    batcher = Batcher[int, int](work, most=4, wait=0.05, room=100)

    async def body() -> None:
        await asyncio.gather(*(batcher.submit(job, size) for job, size in ((1, 3), (2, 1), (3, 9), (4, 2), (5, 3))))

    run_with(batcher, body)
    assert work.batches == [[1, 2], [3], [4], [5]]


def test_a_caller_who_leaves_is_not_worked_for() -> None:
    work = Work()
    batcher = Batcher[int, int](work, most=4, wait=0, room=2)

    async def body() -> None:
        first = asyncio.create_task(batcher.submit(1, 1))
        await until(work.busy.is_set)
        gone = asyncio.create_task(batcher.submit(2, 1))
        stays = asyncio.create_task(batcher.submit(3, 1))
        await until(lambda: batcher.waiting == 2)
        with pytest.raises(BusyError, match="too many queries wait"):
            await batcher.submit(4, 1)
        gone.cancel()
        await until(lambda: batcher.waiting == 1)  # and its place is free
        work.go.set()
        assert await asyncio.gather(first, stays) == [2, 6]

    run_with(batcher, body)
    assert work.batches == [[1], [3]]


def test_what_fails_is_told_to_its_batch_and_the_work_goes_on() -> None:
    work = Work()
    work.go.set()
    batcher = Batcher[int, int](work, most=4, wait=0, room=100)

    async def body() -> None:
        with pytest.raises(RuntimeError, match="thirteen"):
            await batcher.submit(13, 1)
        assert await batcher.submit(1, 1) == 2

    run_with(batcher, body)


def test_decoders_refuse_what_cannot_wait_and_free_the_place_of_who_leaves() -> None:
    async def body() -> None:
        decoders, go, begun = Decoders(threads=1, room=2), threading.Event(), threading.Event()

        def work() -> str:
            begun.set()
            assert go.wait(10)
            return "done"

        first = asyncio.create_task(decoders.run(work))
        await until(begun.is_set)
        waits = asyncio.create_task(decoders.run(lambda: "never"))
        await asyncio.sleep(0)
        with pytest.raises(BusyError, match="too many videos are at work"):
            await decoders.run(work)
        waits.cancel()
        await asyncio.sleep(0)
        third = asyncio.create_task(decoders.run(lambda: "third"))
        await asyncio.sleep(0)
        first.cancel()  # it is being decoded: its place is taken until that ends
        await asyncio.sleep(0)
        with pytest.raises(BusyError):
            await decoders.run(work)
        go.set()
        assert await third == "third"
        decoders.close()

    asyncio.run(asyncio.wait_for(body(), 20))
