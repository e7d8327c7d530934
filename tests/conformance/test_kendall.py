"""Kendall's tau-b against scipy's and against the count of every pair."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from scipy.stats import kendalltau

from vtr_conformance.kendall import kendall_tau_b


def by_definition(one: list[float], other: list[float], tie: float) -> float:
    agree = first = second = 0
    for i, j in combinations(range(len(one)), 2):
        a, b = (0 if abs(x[i] - x[j]) <= tie else (1 if x[i] > x[j] else -1) for x in (one, other))
        agree, first, second = agree + a * b, first + abs(a), second + abs(b)
    return agree / (first * second) ** 0.5


@pytest.mark.parametrize("values", [5, 30, 10_000])
def test_it_is_scipys_with_many_ties_and_with_none(values: int) -> None:
    generator = np.random.default_rng(values)
    want, got = generator.integers(0, values, (2, 130, 40)).astype(np.float64)
    expected = [kendalltau(a, b).statistic for a, b in zip(want, got, strict=True)]
    assert np.allclose(kendall_tau_b(want, got), expected, rtol=0, atol=1e-12)


def test_near_scores_are_ties() -> None:
    generator = np.random.default_rng(0)
    want = generator.normal(size=(5, 12))
    got = want + 0.3 * generator.normal(size=want.shape)
    expected = [by_definition(a, b, 0.2) for a, b in zip(want.tolist(), got.tolist(), strict=True)]
    assert np.allclose(kendall_tau_b(want, got, 0.2), expected, rtol=0, atol=1e-12)


def test_the_ends_of_the_scale_and_what_has_no_order() -> None:
    rising, flat = np.arange(4.0), np.zeros(4)
    want = np.stack([rising, rising, rising, flat])
    got = np.stack([2 * rising + 1, -rising, flat, flat])
    assert kendall_tau_b(want, got).tolist()[:3] == [1, -1, 0]
    assert np.isnan(kendall_tau_b(want, got)[3])
    assert np.isnan(kendall_tau_b(np.ones((2, 1)), np.ones((2, 1)))).all()  # one item
    assert kendall_tau_b(np.zeros((0, 5)), np.zeros((0, 5))).shape == (0,)
