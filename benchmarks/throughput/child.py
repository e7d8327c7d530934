"""One contestant in a process of its own: memory, threads and settings that no other shares."""

from __future__ import annotations

import logging
import multiprocessing
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

from contestant import ENGINES, Contestant


@dataclass(frozen=True)
class Ready:
    """A contestant that runs: what it took to get there, and what it computes."""

    seconds: float
    resident_mb: int
    outputs: dict[str, Any]  # by workload, a NumPy array


class Child:
    """The parent's end. A contestant that fails keeps its reason in `missing` and is asked for nothing more."""

    def __init__(self, contestant: Contestant, *, threads: int, bundle: Path) -> None:
        self.contestant, self.missing = contestant, contestant.missing
        self.ready: Ready | None = None
        self.rounds: list[dict[str, float]] = []
        if self.missing:
            return
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other, contestant, threads, bundle))
        # Read by OpenMP when a child imports its engine.
        os.environ["OMP_NUM_THREADS"] = str(threads)
        self._process.start()
        other.close()
        self.ready = self._receive()

    def race(self, passes: int) -> None:
        """One round: the median seconds of each workload, after one pass that is not counted."""
        if not self.missing:
            self._pipe.send(passes)
            if (seconds := self._receive()) is not None:
                self.rounds.append(seconds)

    def close(self) -> None:
        if not self.missing:
            self._pipe.send(None)
            self._process.join()

    def _receive(self) -> Any:
        try:
            found = self._pipe.recv()
        except EOFError:
            self._process.join()
            found = RuntimeError(f"its process ended with status {self._process.exitcode}")
        if isinstance(found, RuntimeError):
            self.missing = str(found)
            return None
        return found


def _serve(pipe: Connection, contestant: Contestant, threads: int, bundle: Path) -> None:
    logging.disable(logging.WARNING)  # open_clip warns that the weights are random; they are meant to be
    try:
        start = time.perf_counter()
        workloads, finish = _prepare(contestant, threads, bundle)
        outputs = {name: finish(run()) for name, run in workloads.items()}
        pipe.send(Ready(time.perf_counter() - start, _resident_mb(), outputs))
        while (passes := pipe.recv()) is not None:
            pipe.send({name: _median_seconds(run, passes) for name, run in workloads.items()})
    except (EOFError, KeyboardInterrupt):
        return
    except Exception as error:
        pipe.send(RuntimeError(f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"))


def _prepare(
    contestant: Contestant, threads: int, bundle: Path
) -> tuple[dict[str, Callable[[], Any]], Callable[[Any], Any]]:
    import numpy as np

    if contestant.engine not in ENGINES:
        import torch

        torch.set_num_threads(threads)
    if contestant.kind == "product":
        from machine import prepare_products

        return prepare_products(), lambda _: np.zeros(0)
    if contestant.kind == "text":
        from text import prepare_text

        return prepare_text(contestant, threads, bundle), np.asarray
    from video import prepare_video

    return prepare_video(contestant, threads)


def _median_seconds(run: Callable[[], Any], passes: int) -> float:
    run()
    seconds = []
    for _ in range(passes):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return median(seconds)


def _resident_mb() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1]) if Path("/proc/self/statm").is_file() else 0
    return pages * os.sysconf("SC_PAGE_SIZE") >> 20
