"""Retrieval metrics from a score matrix, exact under ties and for any numbers of queries and gallery items.

A query's rank is the rank of its best relevant item among the items that are not relevant. Equal scores have no order,
so three ranks are kept: optimistic (all ties won), pessimistic (all lost) and mean (expected, ties broken at random);
R@K is then the probability that the best relevant item is within the first K. This avoids the trap of sorting a row and
looking the true score up in it, where a tie counts a query twice (CLIP4Clip, metrics.py `compute_metrics`).

Video to text with several captions a video: the rank of its best caption among the captions of other videos. CLIP4Clip
ranks groups of captions there (each video's best one), which makes R@5 and R@10 easier; R@1 is the same in both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import DataError

RECALL_AT = (1, 5, 10)

Relevance = NDArray[np.bool_] | Sequence[set[int]]


@dataclass(frozen=True)
class Ranks:
    """Where each query's best relevant item stands: int64 [Q] each."""

    above: NDArray[np.int64]  # items that are not relevant and score higher
    tied: NDArray[np.int64]  # items that are not relevant and score the same
    tied_relevant: NDArray[np.int64]  # relevant items of that score, itself included

    @property
    def optimistic(self) -> NDArray[np.int64]:
        return self.above + 1

    @property
    def pessimistic(self) -> NDArray[np.int64]:
        return self.above + 1 + self.tied

    @property
    def mean(self) -> NDArray[np.float64]:
        """Expected rank, ties broken at random: of n other and m relevant items, n / (m + 1) come before the first."""
        return self.above + 1 + self.tied / (self.tied_relevant + 1)

    def found_within(self, k: int) -> NDArray[np.float64]:
        """Probability [Q] that the best relevant item is among the first k, ties broken at random."""
        rows = zip(self.above.tolist(), self.tied.tolist(), self.tied_relevant.tolist(), strict=True)
        return np.array([_chance(k - above, tied, relevant) for above, tied, relevant in rows], np.float64)


@dataclass(frozen=True)
class Direction:
    """Metrics of one direction. Recalls in percent; MdR and MnR are the median and the mean of the mean ranks."""

    queries: int
    gallery: int
    recall: dict[int, float]  # K -> R@K
    median_rank: float
    mean_rank: float

    def to_json(self) -> dict[str, Any]:
        recalls = {f"R@{k}": value for k, value in self.recall.items()}
        return {
            "queries": self.queries,
            "gallery": self.gallery,
            **recalls,
            "MdR": self.median_rank,
            "MnR": self.mean_rank,
        }


@dataclass(frozen=True)
class Retrieval:
    """Metrics of both directions."""

    t2v: Direction
    v2t: Direction

    @property
    def rsum(self) -> float:
        """R@1 + R@5 + R@10 of both directions; at most 600."""
        return sum(self.t2v.recall.values()) + sum(self.v2t.recall.values())

    def to_json(self) -> dict[str, Any]:
        return {"t2v": self.t2v.to_json(), "v2t": self.v2t.to_json(), "Rsum": self.rsum}


def ranks(
    scores: NDArray[Any],
    relevant: Relevance,
    *,
    candidates: NDArray[np.bool_] | None = None,
    tolerance: float = 0.0,
) -> Ranks:
    """Rank scores [Q, G] (higher is better). `relevant`: bool [Q, G], or one set of gallery indices per query.

    `candidates` bool [Q, G] restricts each query to a part of the gallery. Scores within `tolerance` of the best
    relevant one are ties. DataError for shapes that do not fit, NaN or infinite scores, or a query without a relevant
    candidate."""
    if scores.ndim != 2 or not np.isfinite(scores).all():
        raise DataError(f"scores must be a finite [queries, gallery] matrix; shape {list(scores.shape)} was given")
    true = _relevance_matrix(relevant, scores.shape)
    allowed = np.ones_like(true) if candidates is None else candidates
    if allowed.shape != scores.shape:
        raise DataError(f"candidates {list(allowed.shape)} do not fit scores {list(scores.shape)}")
    true = true & allowed
    without = np.flatnonzero(~true.any(axis=1))
    if without.size:
        raise DataError(f"query {without[0]} has no relevant item ({without.size} such queries); leave it out")
    best = np.where(true, scores, -np.inf).max(axis=1, keepdims=True)
    higher, tie = scores > best + tolerance, abs(scores - best) <= tolerance
    other = allowed & ~true
    return Ranks((other & higher).sum(axis=1), (other & tie).sum(axis=1), (true & tie).sum(axis=1))


def direction(found: Ranks, gallery: int) -> Direction:
    """Summarise the ranks of one direction."""
    recall = {k: 100 * float(found.found_within(k).mean()) for k in RECALL_AT}
    mean = found.mean
    return Direction(len(mean), gallery, recall, float(np.median(mean)), float(mean.mean()))


def retrieval(scores: NDArray[Any], relevant: Relevance, *, tolerance: float = 0.0) -> Retrieval:
    """Metrics of both directions from scores [texts, videos]; `relevant` as in `ranks`."""
    true = _relevance_matrix(relevant, scores.shape)
    texts, videos = scores.shape
    return Retrieval(
        t2v=direction(ranks(scores, true, tolerance=tolerance), videos),
        v2t=direction(ranks(scores.T, true.T, tolerance=tolerance), texts),
    )


def _relevance_matrix(relevant: Relevance, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    if isinstance(relevant, np.ndarray):
        if relevant.shape != shape or relevant.dtype != np.bool_:
            raise DataError(f"relevance {relevant.dtype} {list(relevant.shape)} does not fit scores {list(shape)}")
        return relevant
    if len(shape) != 2 or len(relevant) != shape[0]:
        raise DataError(f"relevance of {len(relevant)} queries does not fit scores {list(shape)}")
    matrix = np.zeros(shape, np.bool_)
    for query, items in enumerate(relevant):
        if any(not 0 <= item < shape[1] for item in items):
            raise DataError(f"query {query} names a relevant item outside the gallery of {shape[1]}")
        matrix[query, sorted(items)] = True
    return matrix


def _chance(places: int, tied: int, relevant: int) -> float:
    """Chance that one of `relevant` items is within the first `places` of a random order of tied + relevant items."""
    if places <= 0:
        return 0.0
    if places > tied:
        return 1.0
    return 1 - comb(tied, places) / comb(tied + relevant, places)
