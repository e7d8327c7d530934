"""Retrieval metrics from a score matrix, exact under ties and for any numbers of queries and gallery items.

A query's rank is the rank of its best relevant item among the items that are not relevant. Equal scores have no order,
so three ranks are kept: optimistic (all ties won), pessimistic (all lost) and mean (expected, ties broken at random);
R@K is then the probability that the best relevant item is within the first K. This avoids the trap of sorting a row and
looking the true score up in it, where a tie counts a query twice (CLIP4Clip, metrics.py `compute_metrics`).

Video to text with several captions a video: the rank of its best caption among the captions of other videos. CLIP4Clip
ranks groups of captions there (each video's best one), which makes R@5 and R@10 easier; R@1 is the same in both.
`retrieval` counts the first way, `group_video_to_text` the second."""

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
class Figures:
    """What is reported of one ranking: recalls in percent, median rank and mean rank."""

    recall: dict[int, float]  # K -> R@K
    median_rank: float
    mean_rank: float

    def to_json(self) -> dict[str, float]:
        recalls = {f"R@{k}": value for k, value in self.recall.items()}
        return {**recalls, "MdR": self.median_rank, "MnR": self.mean_rank}


@dataclass(frozen=True)
class Direction(Figures):
    """Metrics of one direction: expected with ties broken at random, and with all ties won and all lost."""

    queries: int
    gallery: int
    optimistic: Figures
    pessimistic: Figures

    def to_json(self) -> dict[str, Any]:
        sizes = {"queries": self.queries, "gallery": self.gallery}
        bounds = {"optimistic": self.optimistic.to_json(), "pessimistic": self.pessimistic.to_json()}
        return {**sizes, **super().to_json(), **bounds}


@dataclass(frozen=True)
class QueryResult:
    """One query: where its best relevant item stands, and the item that is not relevant and scores highest."""

    rank: float  # expected, ties broken at random
    optimistic_rank: int
    pessimistic_rank: int
    item: int
    score: float
    wrong: int | None  # None where no candidate is wrong; so are the two after it
    wrong_score: float | None
    margin: float | None  # score - wrong_score; negative where the query fails


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
    expected = {k: 100 * float(found.found_within(k).mean()) for k in RECALL_AT}
    mean = found.mean
    return Direction(
        expected,
        float(np.median(mean)),
        float(mean.mean()),
        queries=len(mean),
        gallery=gallery,
        optimistic=_figures(found.optimistic),
        pessimistic=_figures(found.pessimistic),
    )


def retrieval(
    scores: NDArray[Any], relevant: Relevance, *, backward: NDArray[Any] | None = None, tolerance: float = 0.0
) -> Retrieval:
    """Metrics of both directions from scores [texts, videos]; `relevant` as in `ranks`.

    `backward` [videos, texts] scores the way back where it is not the transpose of `scores`, as after a second stage or
    a post-processing, which treat queries and gallery differently."""
    true = _relevance_matrix(relevant, scores.shape)
    texts, videos = scores.shape
    back = scores.T if backward is None else backward
    return Retrieval(
        t2v=direction(ranks(scores, true, tolerance=tolerance), videos),
        v2t=direction(ranks(back, true.T, tolerance=tolerance), texts),
    )


def group_video_to_text(scores: NDArray[Any], owners: NDArray[np.int64], *, tolerance: float = 0.0) -> Direction:
    """Video to text as CLIP4Clip counts it: each video ranks the N groups of captions, each by its best caption.

    scores [texts, videos]; owners [texts]: the video that each text belongs to. Every video needs a text. DataError for
    owners that do not fit, and as in `ranks`."""
    texts, videos = scores.shape
    if owners.shape != (texts,) or not np.array_equal(np.unique(owners), np.arange(videos)):
        raise DataError(f"owners must give one of the {videos} videos for each of {texts} texts, and leave none out")
    order = np.argsort(owners, kind="stable")
    begins = np.searchsorted(owners[order], np.arange(videos))
    best = np.maximum.reduceat(scores[order], begins, axis=0)
    return direction(ranks(best.T, np.eye(videos, dtype=np.bool_), tolerance=tolerance), videos)


def per_query(scores: NDArray[Any], relevant: Relevance, *, tolerance: float = 0.0) -> list[QueryResult]:
    """Every query of scores [Q, G] on its own; arguments as in `ranks`. Of equal scores the first item is named."""
    found = ranks(scores, relevant, tolerance=tolerance)
    true = _relevance_matrix(relevant, scores.shape)
    items = np.where(true, scores, -np.inf).argmax(axis=1)
    wrongs = np.where(true, -np.inf, scores).argmax(axis=1)
    results = []
    for query, (item, wrong) in enumerate(zip(items.tolist(), wrongs.tolist(), strict=True)):
        row, some_wrong = scores[query], not true[query, wrong]
        bounds = (float(found.mean[query]), int(found.optimistic[query]), int(found.pessimistic[query]))
        right, best_wrong = float(row[item]), float(row[wrong])
        against = (wrong, best_wrong, right - best_wrong) if some_wrong else (None, None, None)
        results.append(QueryResult(*bounds, item, right, *against))
    return results


def _figures(places: NDArray[np.int64]) -> Figures:
    recall = {k: 100 * float((places <= k).mean()) for k in RECALL_AT}
    return Figures(recall, float(np.median(places)), float(places.mean()))


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
