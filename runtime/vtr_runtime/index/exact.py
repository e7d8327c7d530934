"""The best rows by comparing all of them, one block at a time.

A matrix product's last digits depend on the shapes that it is given, and so on the other queries and on where a block
ends. It only chooses candidates; what is returned and ordered is computed a row at a time, alike for every search."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float32]
Rows = NDArray[np.int64]

# Measured on 2 cores: 65,536 rows at a time take twice as long for 64 queries, whose scores then leave the cache.
BLOCK_ROWS = 16384
QUERIES_AT_ONCE = 64
HALF_ROWS = 256
MARGIN = 1e-5
"""More than rounding can move the product of two unit vectors, by far."""


def exact_top(vectors: NDArray[np.floating], queries: Scores, k: int) -> list[tuple[Scores, Rows]]:
    """For each query float32 [Q, D] the scores and numbers of the k best of N rows float32 or float16 [N, D], best
    first, equal scores in the order of the rows."""
    best = [(np.zeros(0, np.float32), np.zeros(0, np.int64)) for _ in queries]
    for start in range(0, len(vectors), BLOCK_ROWS):
        block = vectors[start : start + BLOCK_ROWS]
        for first in range(0, len(queries), QUERIES_AT_ONCE):
            some = slice(first, first + QUERIES_AT_ONCE)
            scores = _products(queries[some], block)
            best[some] = [_better(*old, new, start, k) for old, new in zip(best[some], scores, strict=True)]
    return [order_rows(vectors, query, rows, k) for query, (_, rows) in zip(queries, best, strict=True)]


def order_rows(vectors: NDArray[np.floating], query: Scores, rows: Rows, k: int) -> tuple[Scores, Rows]:
    """The best k of some rows for a query [D], with their scores; equal ones in the order of the rows."""
    rows, wide = np.sort(rows), query.astype(np.float64)
    parts = [np.zeros(0, np.float32)]
    for start in range(0, len(rows), BLOCK_ROWS):
        some = vectors[rows[start : start + BLOCK_ROWS]]
        parts.append((some * wide).sum(axis=1).astype(np.float32))
    scores = np.concatenate(parts)
    order = np.argsort(-scores, kind="stable")[:k]
    return scores[order], rows[order]


def float32_of_half(values: NDArray[np.floating]) -> Scores:
    """Finite float16 as float32, twice as fast as astype: the bits are moved into their places, and the product puts
    right the exponent, whose bias is 15 in one and 127 in the other."""
    bits = np.left_shift(np.ascontiguousarray(values).view(np.int16), 13, dtype=np.int32)
    np.bitwise_and(bits, np.int32(-0x70002000), out=bits)  # the sign was spread over three more bits
    found: Scores = bits.view(np.float32)
    return np.multiply(found, np.float32(2.0**112), out=found)


def _products(queries: Scores, rows: NDArray[np.floating]) -> Scores:
    """queries [Q, D] times rows [n, D] of either type: float32 [Q, n]."""
    if rows.dtype == np.float32:
        return queries @ rows.T
    found = np.empty((len(queries), len(rows)), np.float32)
    for start in range(0, len(rows), HALF_ROWS):
        found[:, start : start + HALF_ROWS] = queries @ float32_of_half(rows[start : start + HALF_ROWS]).T
    return found


def _better(scores: Scores, rows: Rows, new: Scores, start: int, k: int) -> tuple[Scores, Rows]:
    """Candidates for the k best, which all that are nearly as good as the k-th are, of those so far and of a block's
    scores [n], whose first row is `start`."""
    places = np.flatnonzero(new >= _least(scores, k))
    if not len(places):
        return scores, rows
    scores, rows = np.concatenate([scores, new[places]]), np.concatenate([rows, start + places])
    kept = scores >= _least(scores, k)
    return scores[kept], rows[kept]


def _least(scores: Scores, k: int) -> float:
    """What a candidate scores at least."""
    if len(scores) < k:
        return -np.inf
    return float(np.partition(scores, len(scores) - k)[len(scores) - k]) - MARGIN
