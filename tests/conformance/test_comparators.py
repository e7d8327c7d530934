"""Comparators against cases worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from vtr_conformance.comparators import (
    compare,
    compare_chord,
    compare_cosine,
    compare_exact,
    compare_finite,
    compare_loss,
    compare_max_abs,
    compare_ranking,
    compare_relative,
    compare_scale,
)

A = np.array([[0.6, 0.8], [1.0, 0.0]])


def test_exact_counts_the_places_that_differ() -> None:
    assert compare_exact(A, A.copy(), 0).passed
    found = compare_exact(np.array([1, 2, 3]), np.array([1, 5, 6]), 0)
    assert (found.passed, found.measured, found.place) == (False, 2, (1,))


def test_a_digest_or_a_fraction_is_one_place() -> None:
    digests = np.zeros((3, 32), np.uint8)
    other = digests.copy()
    other[1], other[2, 5] = 7, 1
    found = compare("exact", {"sha256": digests}, {"sha256": other}, 0, axes=1)
    assert (found.passed, found.measured, found.place) == (False, 2, (1,))
    none = np.zeros((0, 32), np.uint8)
    assert compare("exact", {"sha256": none}, {"sha256": none.copy()}, 0, axes=1).passed
    ids = np.zeros((3, 4), np.int32)
    assert compare("exact", {"ids": ids}, {"ids": ids + np.int32(1)}, 0, axes=2).measured == 12


def test_missing_times_are_equal_to_missing_times() -> None:
    times = np.array([0.5, np.nan])
    assert compare_exact(times, times.copy(), 0).passed
    assert not compare_exact(times, np.array([0.5, 1.0]), 0).passed


def test_the_largest_difference_is_measured_and_placed() -> None:
    moved = A + np.array([[0, 0], [0, 3e-5]])
    found = compare_max_abs(A, moved, 1e-5)
    assert not found.passed
    assert found.measured == pytest.approx(3e-5)
    assert found.place == (1, 1)
    assert compare_max_abs(A, moved, 1e-4).passed


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_never_passes(bad: float) -> None:
    wrong = A.copy()
    wrong[0, 1] = bad
    for comparator in (compare_max_abs, compare_ranking, compare_cosine, compare_scale, compare_loss, compare_chord):
        assert not comparator(A, wrong, 1e9).passed
    assert not compare_finite(A, wrong, 0).passed


def test_another_shape_never_passes() -> None:
    every = (
        compare_exact,
        compare_max_abs,
        compare_relative,
        compare_ranking,
        compare_cosine,
        compare_scale,
        compare_chord,
    )
    for comparator in (*every, compare_finite, compare_loss):
        assert not comparator(A, A[:1], 1e9).passed


def test_relative_differences_are_over_the_norm_of_the_row() -> None:
    want = np.array([[3.0, 4.0], [0.6, 0.8]])
    found = compare_relative(want, want + np.array([[5e-5, 0], [0, 0]]), 1.1e-5)
    assert found.passed
    assert found.measured == pytest.approx(1e-5)
    assert not compare_relative(want, want + np.array([[0, 0], [5e-5, 0]]), 1.1e-5).passed


def turned(degrees: float) -> np.ndarray:
    """A's first row, turned in its plane."""
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.stack([turn @ A[0], A[1]])


@pytest.mark.parametrize("degrees", [0.1, 1.0, 5.0])
def test_the_smallest_cosine_of_all_rows_is_measured(degrees: float) -> None:
    distance = 1 - np.cos(np.deg2rad(degrees))
    found = compare_cosine(A, turned(degrees), distance * 1.01)
    assert (found.passed, found.place) == (True, (0,))
    assert found.measured == pytest.approx(distance)
    assert not compare_cosine(A, turned(degrees), distance * 0.99).passed


def test_a_vector_that_lost_its_length_is_not_saved_by_its_cosine() -> None:
    assert not compare_cosine(A, 1.1 * A, 1e-3).passed
    zero = np.zeros((1, 2))  # a masked frame
    assert compare_cosine(zero, zero, 0).passed
    assert not compare_cosine(zero, A[:1], 1e-3).passed


def test_the_distance_of_a_row_is_over_its_norm() -> None:
    want = np.array([[3.0, 4.0], [0.6, 0.8]])
    found = compare_chord(want, want + np.array([[0.03, 0.04], [0.0, 0.0]]), 0.0101)
    assert (found.passed, found.place) == (True, (0,))
    assert found.measured == pytest.approx(0.01)
    assert not compare_chord(want, want + np.array([[0.0, 0.0], [0.03, 0.04]]), 0.0101).passed


def test_scores_are_compared_over_the_largest() -> None:
    want = np.array([20.0, -40.0, 0.001])
    found = compare_scale(want, want + np.array([0, 0, 0.4]), 0.011)
    assert (found.passed, found.place) == (True, (2,))
    assert found.measured == pytest.approx(0.01)
    assert not compare_scale(want, want + 0.4, 0.009).passed


def test_of_finite_values_the_distance_is_told_and_not_judged() -> None:
    found = compare_finite(A, -A, 0)
    assert (found.passed, found.measured) == (True, 0)
    assert "not judged" in found.trouble
    assert compare_finite(A, np.full_like(A, np.nan), 0).measured == 4


def test_only_a_fall_is_a_loss() -> None:
    assert compare_loss(np.array(40.0), np.array(60.0), 1).measured == 0
    found = compare_loss(np.array(40.0), np.array(38.5), 1)
    assert (found.passed, found.measured) == (False, 1.5)


def test_a_swap_is_as_large_as_the_distance_of_the_two_scores() -> None:
    want = np.array([[0.9, 0.5, 0.2]])
    found = compare_ranking(want, np.array([[0.9, 0.3, 0.31]]), 0.1)
    assert (found.passed, found.measured) == (False, pytest.approx(0.3))
    assert compare_ranking(want, np.array([[0.9, 0.3, 0.31]]), 0.31).passed


def test_scores_may_move_as_long_as_their_order_stays() -> None:
    want = np.random.default_rng(0).normal(size=(5, 9))
    assert compare_ranking(want, np.tanh(want) * 7 - 3, 0).measured == 0


def test_a_ranking_equals_a_search_over_all_pairs() -> None:
    rng = np.random.default_rng(1)
    want, got = rng.normal(size=(4, 6)), rng.normal(size=(4, 6))
    largest = max(
        want[q, j] - want[q, i] for q in range(4) for i in range(6) for j in range(6) if got[q, i] > got[q, j]
    )
    assert compare_ranking(want, got, 0).measured == pytest.approx(max(0.0, largest))


def test_every_expected_output_is_looked_at() -> None:
    assert not compare("max_abs", {"a": A, "b": A}, {"a": A}, 1).passed
    found = compare("max_abs", {"a": A, "b": A}, {"a": A, "b": A + 1}, 0.5)
    assert (found.passed, found.output) == (False, "b")
