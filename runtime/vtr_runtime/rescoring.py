"""Scores changed after the fact: by the other queries, by a bank of queries, or by a second stage.

All functions take scores of queries against a gallery (higher is better), compute in float64 and leave their arguments
as they are. For the other direction give the transposed scores."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import DataError

Scores = NDArray[np.float64]

BELOW = 1.0
"""How far the best item outside the top K stands below the last one inside: more than any tolerance of ties."""


def dual_softmax(scores: NDArray[Any], temperature: float) -> Scores:
    """Dual softmax (DSL): S * Q * softmax over the Q queries of S / temperature, per gallery item; [Q, G].

    Transductive: a query's scores depend on all other queries of the set, and on a gallery item being right for one
    query only. Source: CAMoE (arXiv 2109.04290), as used at test time."""
    given = _matrix(scores, "scores")
    shares = np.exp(given / _positive(temperature) - _log_sum_exp(given / temperature))
    return given * shares * len(given)


def query_bank_norm(scores: NDArray[Any], bank: NDArray[Any], temperature: float, *, dynamic: bool = True) -> Scores:
    """Inverted softmax over a bank of M queries; scores [Q, G], bank [M, G] (the bank against the same gallery).

    A row becomes S - temperature * log(sum over the bank of exp(B / temperature)): the logarithm of the paper's
    quotient, which ranks a row alike, cannot overflow and stays in the unit of the scores. `dynamic` leaves a query as
    it is unless its best item is the best item of some query of the bank (the activation set, its k = 1). Rows that
    are changed and rows that are not must not be compared with each other.
    Source: Bogolin et al., Cross Modal Retrieval with Querybank Normalisation (CVPR 2022), section 3; there 1 /
    temperature is beta = 20."""
    given, known = _matrix(scores, "scores"), _matrix(bank, "the bank")
    if known.shape[1] != given.shape[1]:
        raise DataError(f"the bank {list(known.shape)} scores another gallery than the queries {list(given.shape)}")
    changed = given - temperature * _log_sum_exp(known / _positive(temperature))
    if not dynamic:
        return changed
    active = np.isin(given.argmax(axis=1), known.argmax(axis=1))
    return np.where(active[:, None], changed, given)


def top_k(first: NDArray[Any], k: int) -> NDArray[np.int64]:
    """The k best items of each row, best first; equal scores in the order of the gallery. int64 [Q, min(k, G)]."""
    if k < 1:
        raise DataError(f"the top {k} of a ranking is empty; give at least 1")
    return np.argsort(-_matrix(first, "scores"), axis=1, kind="stable")[:, :k].astype(np.int64)


def second_stage(first: NDArray[Any], second: NDArray[Any], top: NDArray[np.int64], weight: float) -> Scores:
    """Reorder only the top K by first + weight * second; all other items stay below them, in their own order.

    first [Q, G]; top int64 [Q, K], no item twice in a row; second [Q, K], the second stage's scores of those items.
    Returns [Q, G]: sums for the top K; the others shifted as one, with their differences kept."""
    given, top = _matrix(first, "scores"), np.asarray(top)
    ordered = np.sort(top, axis=-1)
    fits = top.ndim == 2 and len(top) == len(given) and top.shape[1] > 0 and top.shape == second.shape
    if not fits or ordered.min() < 0 or ordered.max() >= given.shape[1] or (np.diff(ordered) == 0).any():
        raise DataError(
            f"top {list(top.shape)} and second {list(second.shape)} do not fit scores {list(given.shape)}; give each "
            "query's K different items and a score for each"
        )
    total = np.take_along_axis(given, top, axis=1) + weight * second.astype(np.float64)
    others = given.copy()
    np.put_along_axis(others, top, -np.inf, axis=1)
    best_other = others.max(axis=1, keepdims=True)  # -inf where the top K is the whole gallery
    placed: Scores = given + (
        total.min(axis=1, keepdims=True) - BELOW - np.where(np.isfinite(best_other), best_other, 0.0)
    )
    np.put_along_axis(placed, top, total, axis=1)
    return placed


def _matrix(scores: NDArray[Any], what: str) -> Scores:
    if scores.ndim != 2 or 0 in scores.shape or not np.isfinite(scores).all():
        raise DataError(f"{what} must be a finite [queries, gallery] matrix; shape {list(scores.shape)} was given")
    return scores.astype(np.float64)


def _positive(temperature: float) -> float:
    if not temperature > 0:
        raise DataError(f"temperature is {temperature} and must be above 0")
    return temperature


def _log_sum_exp(scores: Scores) -> Scores:
    """Over the rows: [Q, G] -> [G]."""
    highest = scores.max(axis=0)
    total: Scores = highest + np.log(np.exp(scores - highest).sum(axis=0))
    return total
