"""A pool of worker processes, one for each core."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context


def count_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def open_pool() -> ProcessPoolExecutor:
    # spawn: a forked child of a process with threads can hang. An interrupt is the parent's to handle.
    ignore = (signal.SIGINT, signal.SIG_IGN)
    return ProcessPoolExecutor(count_cores(), get_context("spawn"), initializer=signal.signal, initargs=ignore)
