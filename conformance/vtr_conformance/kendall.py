"""Kendall's tau-b: do two lists of scores put the same items in the same order?"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Queries whose pairs are compared at once: 64 of 100 items are 640,000 pairs.
BLOCK = 64


def kendall_tau_b(expected: NDArray[np.float64], actual: NDArray[np.float64], tie: float = 0.0) -> NDArray[np.float64]:
    """Scores [Q, K] of the same K items -> tau-b [Q], from -1 (the other way round) to 1 (the same order).

    (C - D) / sqrt(P Q): of all pairs of items, C stand the same way round on both sides and D the other way; P are in
    order on the one side and Q on the other. Two items that are at most `tie` apart are tied on that side: such a pair
    is neither in C nor in D, and is left out of that side's count. 0 where one side alone ties everything; NaN where
    both do, and there is no order to compare."""
    parts = [
        _tau(expected[row : row + BLOCK], actual[row : row + BLOCK], tie) for row in range(0, len(expected), BLOCK)
    ]
    return np.concatenate(parts) if parts else np.zeros(0)


def _tau(expected: NDArray[np.float64], actual: NDArray[np.float64], tie: float) -> NDArray[np.float64]:
    first, second = np.triu_indices(expected.shape[1], 1)
    one, other = (_signs(scores[:, first] - scores[:, second], tie) for scores in (expected, actual))
    agree = (one * other).sum(axis=1, dtype=np.int64)
    in_order = np.abs(one).sum(axis=1, dtype=np.int64), np.abs(other).sum(axis=1, dtype=np.int64)
    both = np.sqrt(in_order[0].astype(np.float64) * in_order[1])
    tau = np.divide(agree, both, out=np.zeros(len(both)), where=both > 0)
    return np.where(in_order[0] + in_order[1] > 0, tau, np.nan)


def _signs(apart: NDArray[np.float64], tie: float) -> NDArray[np.int8]:
    return (apart > tie).astype(np.int8) - (apart < -tie)
