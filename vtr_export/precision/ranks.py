"""Embeddings of a reduced graph against those in fp32: cosine, and what it does to the ranks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Margins below this are ties already between two fp32 backends.
TIE = 2e-5


@dataclass(frozen=True)
class Moved:
    """How far a set of embeddings moved. `cosine` is NaN where one of them is not finite."""

    cosine: float  # the smallest over the rows
    largest: float  # max |difference| of single numbers

    @property
    def error(self) -> float:
        """1 - cosine; infinite where an embedding is not finite."""
        return 1.0 - self.cosine if np.isfinite(self.cosine) else float("inf")


def compare(want: NDArray[np.float32], got: NDArray[np.float32]) -> Moved:
    """Rows [N, D] of norm 1 in fp32 against those of less precision, in float64."""
    if not np.isfinite(got).all():
        return Moved(float("nan"), float("inf"))
    a, b = want.astype(np.float64), got.astype(np.float64)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosines = (a * b).sum(axis=1) / np.maximum(norms, 1e-30)
    return Moved(float(cosines.min()), float(np.abs(a - b).max()))


def count_flips(want: NDArray[np.floating], got: NDArray[np.floating], noise: float) -> tuple[int, int]:
    """Scores [queries, items] -> (queries with another best item, those of them with a margin in `want` above `noise`).

    The margin is the score of the best item less that of the second."""
    if want.shape[1] < 2:
        return 0, 0
    flipped = want.argmax(axis=1) != got.argmax(axis=1)
    two = np.sort(want, axis=1)[:, -2:]
    margins = two[:, 1] - two[:, 0]
    return int(flipped.sum()), int((flipped & (margins > max(noise, TIE))).sum())
