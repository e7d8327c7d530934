"""Two sets of embeddings: rankings by hand, margins, and blocks that change nothing."""

from __future__ import annotations

import numpy as np
import pytest

from vtr_conformance import rankings
from vtr_conformance.rankings import Side, compare_sides, flip_margins, summarise, top_margins
from vtr_runtime.metrics import direction, ranks


def one_hot(scores: list[list[float]]) -> Side:
    """Queries whose scores with the items are these: the items are the axes."""
    matrix = np.array(scores, np.float32)
    return Side(matrix, np.eye(matrix.shape[1], dtype=np.float32))


def diagonal(queries: int, items: int) -> np.ndarray:
    return np.arange(queries)[:, None] == np.arange(items)


WANT = [[0.9, 0.5, 0.4], [0.3, 0.8, 0.7], [0.1, 0.2, 0.3]]
GOT = [[0.9, 0.5, 0.4], [0.3, 0.6, 0.7], [0.4, 0.2, 0.3]]


def test_a_flip_is_as_large_as_the_references_preference() -> None:
    assert np.allclose(flip_margins(np.array(WANT), np.array(GOT)), [np.nan, 0.1, 0.2], equal_nan=True)


def test_the_first_ten_part_by_the_best_that_left_and_the_worst_that_came() -> None:
    want = np.linspace(1, 0, 13)[None].repeat(3, axis=0)  # 1/12 apart
    before = np.arange(10)[None].repeat(3, axis=0)
    shuffled, one, two = [*range(9, -1, -1)], [*range(9), 10], [*range(7), 9, 12, 11]
    margins = top_margins(want, before, np.array([shuffled, one, two]))
    assert np.allclose(margins, [np.nan, 1 / 12, (12 - 7) / 12], equal_nan=True)


def test_every_figure_by_hand() -> None:
    want, got = one_hot(WANT), one_hot(GOT)
    compared = compare_sides(want, got, lambda rows: diagonal(3, 3)[rows])
    found = summarise(compared, want, got, 0.15, ("q0", "q1", "q2"), ("a", "b", "c"))
    assert (found.queries, found.gallery, found.flips, found.flips_outside) == (3, 3, 2, 1)
    assert found.reference == pytest.approx({"R@1": 100, "R@5": 100, "R@10": 100, "MdR": 1, "MnR": 1})
    assert found.figures == pytest.approx({"R@1": 100 / 3, "R@5": 100, "R@10": 100, "MdR": 2, "MnR": 5 / 3})
    assert found.largest_flip == pytest.approx(0.2)
    assert (found.top10_changed, found.top10_outside, found.largest_top10) == (0, 0, 0)
    assert found.identical == 1
    # Of three pairs all stand alike, then two, then one: tau 1, 1/3, -1/3.
    assert found.tau == pytest.approx(1 / 3)
    assert found.worst_tau == pytest.approx(-1 / 3)
    assert found.worst is not None
    assert (found.worst.query, found.worst.reference_best, found.worst.host_best) == ("q2", "c", "a")
    assert found.worst.reference_scores == pytest.approx((0.3, 0.1))
    assert found.worst.host_scores == pytest.approx((0.3, 0.4))


def test_without_a_flip_there_is_no_worst_query() -> None:
    side = one_hot(WANT)
    compared = compare_sides(side, side, lambda rows: diagonal(3, 3)[rows])
    found = summarise(compared, side, side, 0.0, ("q0", "q1", "q2"), ("a", "b", "c"))
    assert found.worst is None
    assert (found.flips, found.identical, found.tau, found.worst_tau) == (0, 3, 1, 1)


def test_one_item_has_no_order() -> None:
    side = one_hot([[0.5], [0.4]])
    compared = compare_sides(side, side, lambda rows: np.ones((2, 1), bool)[rows])
    found = summarise(compared, side, side, 0.0, ("q0", "q1"), ("a",))
    assert (found.tau, found.worst_tau, found.reference["R@1"]) == (None, None, 100)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    queries, items = generator.normal(size=(37, 8)), generator.normal(size=(120, 8))
    want = Side(queries.astype(np.float32), items.astype(np.float32))
    got = Side(*((side + 0.1 * generator.normal(size=side.shape)).astype(np.float32) for side in (queries, items)))
    relevant = diagonal(37, 120)

    def whole() -> rankings.Direction:
        compared = compare_sides(want, got, lambda rows: relevant[rows])
        return summarise(compared, want, got, 0.01, [str(n) for n in range(37)], [str(n) for n in range(120)])

    first = whole()
    assert first.flips
    assert first.top10_changed
    assert first.top10_outside <= first.top10_changed
    monkeypatch.setattr(rankings, "BLOCK_SCORES", 5 * 120)
    assert whole() == first
    scores = got.queries.astype(np.float64) @ got.items.astype(np.float64).T
    assert first.figures["R@10"] == pytest.approx(direction(ranks(scores, relevant), 120).recall[10])
    top = [set(np.argsort(-row)[:10]) for row in scores]
    wanted = [set(np.argsort(-row)[:10]) for row in want.queries.astype(np.float64) @ want.items.astype(np.float64).T]
    assert first.top10_changed == sum(a != b for a, b in zip(top, wanted, strict=True))
