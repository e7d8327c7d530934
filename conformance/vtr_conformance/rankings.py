"""Two sets of embeddings of the same queries and items: which rankings do they give, and where do they part?

Scores are made and compared in blocks of queries: what is kept for a query is a handful of numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vtr_runtime.metrics import Figures, Ranks, direction, ranks
from vtr_runtime.stages import RANKING_TIE

from .comparators import swaps_of_order
from .hosts.base import scores
from .kendall import kendall_tau_b
from .results import Direction, WorstQuery

# Scores of a block: 16 MB in float64, of which some ten are held at a time.
BLOCK_SCORES = 2**21
TOP = 10
TAU_TOP = 100
# The deviation of the difference of two numbers whose median distance from their median is 1 (normally distributed).
DEVIATION_OF_DIFFERENCE = 2**0.5 * 1.4826

Scores = NDArray[np.float64]
Rows = NDArray[np.intp]


@dataclass(frozen=True)
class Side:
    """Embeddings of one host: float32 [Q, D] and [G, D], unit length."""

    queries: NDArray[np.float32]
    items: NDArray[np.float32]


@dataclass(frozen=True)
class Compared:
    """What a query's two rankings have in common; every array is [Q]. Margins are in the reference's scores."""

    wanted: Ranks
    found: Ranks
    best: Rows  # the reference's best item
    now_best: Rows  # the other side's
    flip: Scores  # by how much the reference prefers its own best; NaN where it is the same item
    top: Scores  # the same of the first TOP, see `top_margins`
    swap: Scores  # see comparators.swaps_of_order
    tau: Scores  # tau-b of the reference's first TAU_TOP; NaN where there is nothing to order
    spread: Scores  # see `error_spread`


def compare_sides(want: Side, got: Side, relevant: Callable[[slice], NDArray[np.bool_]]) -> Compared:
    """Compare in blocks. `relevant` gives bool [rows, G] for a block of queries."""
    rows = max(1, BLOCK_SCORES // max(1, len(want.items)))
    parts = []
    for start in range(0, len(want.queries), rows):
        block = slice(start, start + rows)
        wanted, found = (scores(side.queries[block], side.items) for side in (want, got))
        parts.append(_compare(wanted, found, relevant(block)))
    joined = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _PER_QUERY}
    return Compared(_joined([part.wanted for part in parts]), _joined([part.found for part in parts]), **joined)


def summarise(
    found: Compared,
    want: Side,
    got: Side,
    noise: float,
    names: Sequence[str],
    items: Sequence[str],
) -> Direction:
    """What is reported of one direction; `names` are the queries', `items` the gallery's."""
    gallery = len(items)
    tau = found.tau[~np.isnan(found.tau)]
    return Direction(
        queries=len(names),
        gallery=gallery,
        figures=Figures.to_json(direction(found.found, gallery)),
        reference=Figures.to_json(direction(found.wanted, gallery)),
        identical=int((found.swap <= RANKING_TIE).sum()),
        flips=int((~np.isnan(found.flip)).sum()),
        flips_outside=int((found.flip > noise).sum()),
        largest_flip=float(np.nanmax(found.flip, initial=0.0)),
        top10_changed=int((~np.isnan(found.top)).sum()),
        top10_outside=int((found.top > noise).sum()),
        largest_top10=float(np.nanmax(found.top, initial=0.0)),
        tau=float(tau.mean()) if tau.size else None,
        worst_tau=float(tau.min()) if tau.size else None,
        worst=_worst(found, want, got, names, items),
    )


def flip_margins(want: Scores, got: Scores) -> Scores:
    """Per query [Q]: by how much the reference prefers its own best item to the one that is best now; NaN where that
    is the same item."""
    before, after = want.argmax(axis=1), got.argmax(axis=1)
    rows = np.arange(len(want))
    return np.where(before == after, np.nan, want[rows, before] - want[rows, after])


def top_margins(want: Scores, before: Rows, after: Rows) -> Scores:
    """Per query [Q]: how far apart in the reference's scores stand the best item that left the first TOP and the worst
    that came in; NaN where the two sets are the same. `before` and `after` [Q, TOP] are the sets."""
    margins = np.full(len(want), np.nan)
    changed = (np.sort(before, axis=1) != np.sort(after, axis=1)).any(axis=1)
    for row in np.flatnonzero(changed):
        left, came = np.setdiff1d(before[row], after[row]), np.setdiff1d(after[row], before[row])
        margins[row] = want[row, left].max() - want[row, came].min()
    return margins


def error_spread(want: Scores, got: Scores) -> Scores:
    """Per query [Q]: the deviation by which the difference of two items' scores is off. Told from medians: a few items
    that are far off do not move it, and neither does an error that all items share, which swaps none."""
    error = got - want
    error -= np.median(error, axis=1, keepdims=True)
    return np.asarray(DEVIATION_OF_DIFFERENCE * np.median(np.abs(error), axis=1))


_PER_QUERY = ("best", "now_best", "flip", "top", "swap", "tau", "spread")


def _compare(want: Scores, got: Scores, relevant: NDArray[np.bool_]) -> Compared:
    first = np.argsort(-want, axis=1, kind="stable")[:, :TAU_TOP]
    order = np.argsort(-got, axis=1, kind="stable")
    wanted_first, found_first = (np.take_along_axis(side, first, axis=1) for side in (want, got))
    return Compared(
        wanted=ranks(want, relevant),
        found=ranks(got, relevant),
        best=want.argmax(axis=1),
        now_best=got.argmax(axis=1),
        flip=flip_margins(want, got),
        top=top_margins(want, first[:, :TOP], order[:, :TOP]),
        swap=swaps_of_order(want, order),
        tau=kendall_tau_b(wanted_first, found_first, RANKING_TIE),
        spread=error_spread(want, got),
    )


def _worst(found: Compared, want: Side, got: Side, names: Sequence[str], items: Sequence[str]) -> WorstQuery | None:
    """The flip with the largest margin; None where no query has another best item."""
    if np.isnan(found.flip).all():
        return None
    row = int(np.nanargmax(found.flip))
    pair = [int(found.best[row]), int(found.now_best[row])]
    wanted, now = (scores(side.queries[[row]], side.items[pair])[0] for side in (want, got))
    return WorstQuery(
        query=names[row],
        reference_best=items[pair[0]],
        host_best=items[pair[1]],
        reference_scores=(float(wanted[0]), float(wanted[1])),
        host_scores=(float(now[0]), float(now[1])),
    )


def _joined(parts: Sequence[Ranks]) -> Ranks:
    names = ("above", "tied", "tied_relevant")
    return Ranks(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))
