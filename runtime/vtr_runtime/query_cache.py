"""The embeddings of sentences asked for lately: people ask the same again, and a text tower takes its time."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class CacheInfo:
    """Sentences that were found and that were not, and how many are kept of how many at most."""

    hits: int
    misses: int
    size: int
    capacity: int


class QueryCache:
    """Embeddings by their token ids, so that sentences that clean to the same text are one. Safe to share by threads.

    The least lately used goes when there are more than `capacity`; with 0 nothing is kept."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._rows: OrderedDict[bytes, NDArray[np.float32]] = OrderedDict()
        self._lock = threading.Lock()
        self._hits = self._misses = 0

    def get(self, key: bytes) -> NDArray[np.float32] | None:
        """The embedding, to be read only."""
        with self._lock:
            found = self._rows.get(key)
            if found is None:
                self._misses += 1
                return None
            self._hits += 1
            self._rows.move_to_end(key)
            return found

    def put(self, key: bytes, row: NDArray[np.float32]) -> None:
        if self._capacity <= 0:
            return
        with self._lock:
            self._rows[key] = row.copy()
            self._rows.move_to_end(key)
            while len(self._rows) > self._capacity:
                self._rows.popitem(last=False)

    def info(self) -> CacheInfo:
        with self._lock:
            return CacheInfo(self._hits, self._misses, len(self._rows), self._capacity)
