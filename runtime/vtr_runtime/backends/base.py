"""What every engine offers."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import BackendError
from ..manifest import Precision

NO_SECOND_STAGE = "this bundle has no second stage; export it with --rerank"


class PrecisionError(BackendError):
    """An engine that has no kernels for a bundle's precision."""


class Backend(Protocol):
    """Runs the bundle's graphs. Safe to share between threads.

    `runs_precision` is what this backend computes this bundle in. `precision_note` says why what comes out is no proof
    of that precision (an emulation, say); None where it is one. `text_rows` is how many sentences at a time, sorted by
    length, cost least here (benchmarks/throughput)."""

    name: str
    runs_precision: Precision
    precision_note: str | None
    text_rows: int

    def video(self, frames: NDArray[np.uint8], mask: NDArray[np.bool_]) -> dict[str, NDArray[np.float32]]:
        """frames uint8 [B, T, S, S, 3] and mask bool [B, T] -> the graph's outputs by name; `embedding` is [B, D]."""
        ...

    def text(self, ids: NDArray[np.int32]) -> dict[str, NDArray[np.float32]]:
        """ids int32 [B, L] -> the graph's outputs by name; `embedding` is float32 [B, D]."""
        ...

    def rerank(self, feed: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
        """The second stage for one query: those inputs by name that the manifest lists for the graph, of `embedding`
        float32 [D], `word_embeddings` [L, D], `word_mask` bool [L], `word_weights` float32 [L], `frame_embeddings`
        [K, T, D] and `frame_mask` bool [K, T] -> scores float32 [K]. UsageError for a bundle without a second stage."""
        ...
