"""Dynamic batching: what concurrent callers ask for is collected and done together in one thread."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, TypeVar

from ..errors import VtrError

Job = TypeVar("Job")
Answer = TypeVar("Answer")


class BusyError(VtrError):
    """More is asked for than can wait."""


@dataclass(eq=False)
class _Waiting(Generic[Job, Answer]):
    job: Job
    size: int
    answer: asyncio.Future[Answer]
    is_queued: bool = True


class Batcher(Generic[Job, Answer]):
    """Gives `work` the jobs that came while it was busy, or within `wait` seconds of the first.

    A batch ends before the job that would bring its size above `most`; a larger job goes alone. At most `room` may wait
    in all. `work` returns an answer for each job, in their order; what it raises is raised to each of its callers."""

    def __init__(self, work: Callable[[Sequence[Job]], Sequence[Answer]], *, most: int, wait: float, room: int) -> None:
        self._work, self._most, self._wait, self._room = work, most, wait, room
        self._queue: deque[_Waiting[Job, Answer]] = deque()
        self._arrived, self._full = asyncio.Event(), asyncio.Event()
        self.waiting = 0  # their sizes' sum

    async def submit(self, job: Job, size: int) -> Answer:
        """Wait for the answer. A caller that is cancelled leaves the queue. BusyError where there is no room."""
        if self.waiting + size > self._room:
            raise BusyError("too many queries wait already; try again in a second")
        item = _Waiting[Job, Answer](job, size, asyncio.get_running_loop().create_future())
        self._queue.append(item)
        self._count(size)
        try:
            return await item.answer
        finally:
            if item.is_queued:
                self._queue.remove(item)
                self._count(-size)

    async def run(self) -> None:
        """Work until cancelled; the pass that runs then is finished."""
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1, thread_name_prefix="batch") as thread:
            while True:
                await self._arrived.wait()
                if self._wait:
                    with suppress(asyncio.TimeoutError):
                        await asyncio.wait_for(self._full.wait(), self._wait)
                batch = self._take()
                try:
                    answers = await loop.run_in_executor(thread, self._work, [item.job for item in batch])
                    for item, answer in zip(batch, answers, strict=True):
                        if not item.answer.done():
                            item.answer.set_result(answer)
                except Exception as error:
                    for item in batch:
                        if not item.answer.done():
                            item.answer.set_exception(error)

    def _take(self) -> list[_Waiting[Job, Answer]]:
        batch: list[_Waiting[Job, Answer]] = []
        size = 0
        while self._queue and (not batch or size + self._queue[0].size <= self._most):
            item = self._queue.popleft()
            item.is_queued = False
            batch.append(item)
            size += item.size
        self._count(-size)
        return batch

    def _count(self, change: int) -> None:
        self.waiting += change
        for event, holds in ((self._arrived, bool(self._queue)), (self._full, self.waiting >= self._most)):
            event.set() if holds else event.clear()
