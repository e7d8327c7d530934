"""(expected, actual, limit) -> Comparison. Pure; NaN and infinity never pass."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .stages import Comparator

Array = NDArray[Any]


@dataclass(frozen=True)
class Comparison:
    """`measured` against `limit`; the largest difference stands at `place`, an index into `output`.

    `trouble` says what else is wrong with that output, or of note."""

    passed: bool
    measured: float
    place: tuple[int, ...] = ()
    trouble: str = ""
    output: str = ""


def compare(kind: Comparator, expected: dict[str, Array], actual: dict[str, Array], limit: float) -> Comparison:
    """Compare every expected output; the worst one is reported."""
    worst = Comparison(True, 0.0)
    for name, want in expected.items():
        if name not in actual:
            return Comparison(False, float("inf"), trouble="not given", output=name)
        found = _COMPARATORS[kind](want, actual[name], limit)
        if (not found.passed, found.measured) >= (not worst.passed, worst.measured):
            worst = replace(found, output=name)
    return worst


def compare_exact(expected: Array, actual: Array, limit: float) -> Comparison:
    """How many places differ; equal NaNs are equal (times of masked frames)."""
    if expected.shape != actual.shape:
        return _another_shape(expected, actual)
    same = expected == actual
    if np.issubdtype(expected.dtype, np.floating):
        same |= np.isnan(expected) & np.isnan(actual)
    wrong = int((~same).sum())
    return Comparison(wrong <= limit, float(wrong), _place(~same) if wrong else ())


def compare_max_abs(expected: Array, actual: Array, limit: float) -> Comparison:
    """The largest absolute difference. What is expected may be a host's own, and not finite either."""
    if expected.shape != actual.shape:
        return _another_shape(expected, actual)
    finite = np.isfinite(actual) & np.isfinite(expected)
    if not finite.all():
        return Comparison(False, float("inf"), _place(~finite), "not finite")
    difference = np.abs(expected.astype(np.float64) - actual.astype(np.float64))
    measured = float(difference.max(initial=0.0))
    return Comparison(measured <= limit, measured, _place(difference == measured) if measured else ())


def compare_relative(expected: Array, actual: Array, limit: float) -> Comparison:
    """The largest absolute difference of vectors that are not of unit length, over the norm of the expected vector."""
    norm = np.linalg.norm(expected.astype(np.float64), axis=-1, keepdims=True).clip(min=1e-12)
    if expected.shape != actual.shape:
        return compare_max_abs(expected, actual, limit)
    return compare_max_abs(expected / norm, actual / norm, limit)


def compare_chord(expected: Array, actual: Array, limit: float) -> Comparison:
    """The largest distance of two vectors [..., D], over the norm of the expected one."""
    finite = compare_max_abs(expected, actual, float("inf"))
    if not finite.passed:
        return finite
    want = expected.astype(np.float64)
    apart = np.linalg.norm(want - actual, axis=-1) / np.linalg.norm(want, axis=-1).clip(min=1e-12)
    measured = float(apart.max(initial=0.0))
    return Comparison(measured <= limit, measured, _place(apart == measured) if measured else ())


def compare_scale(expected: Array, actual: Array, limit: float) -> Comparison:
    """The largest absolute difference of scores, over the largest expected score."""
    largest = max(float(np.abs(expected).max(initial=0.0)), 1e-12)
    return compare_max_abs(expected / largest, actual / largest, limit)


def compare_cosine(expected: Array, actual: Array, limit: float) -> Comparison:
    """Unit vectors [..., D]: 1 - the smallest cosine, in float64.

    Taken as half the squared distance, which is the same at unit length; so a vector that lost its length is found
    too, and where a masked frame's vector is zero, zero is expected."""
    finite = compare_max_abs(expected, actual, float("inf"))
    if not finite.passed:
        return finite
    apart = ((expected.astype(np.float64) - actual.astype(np.float64)) ** 2).sum(axis=-1) / 2
    measured = float(apart.max(initial=0.0))
    return Comparison(measured <= limit, measured, _place(apart == measured) if measured else ())


def compare_finite(expected: Array, actual: Array, limit: float) -> Comparison:
    """How many values are not finite; how far the others are off is told and not judged."""
    if expected.shape != actual.shape:
        return compare_max_abs(expected, actual, limit)
    wrong = ~np.isfinite(actual)
    if wrong.sum() > limit:
        return Comparison(False, float(wrong.sum()), _place(wrong), "not finite")
    off = compare_relative(np.atleast_1d(expected), np.atleast_1d(actual), float("inf")).measured
    return Comparison(True, float(wrong.sum()), trouble=f"off by {off:.2g} of its norm, which is not judged")


def compare_loss(expected: Array, actual: Array, limit: float) -> Comparison:
    """By how much a figure of merit fell; a rise is no loss."""
    finite = compare_max_abs(expected, actual, float("inf"))
    if not finite.passed:
        return finite
    measured = float((expected - actual).max(initial=0.0))
    return Comparison(measured <= limit, measured)


def compare_ranking(expected: Array, actual: Array, limit: float) -> Comparison:
    """Scores [queries, gallery]: does each query rank the gallery alike, ties aside?

    Order the gallery by the actual scores; wherever a later item has a higher expected score than an earlier one,
    the two were swapped, and their distance in expected scores says how far from a tie they were. The largest
    counts."""
    if expected.shape != actual.shape:
        return _another_shape(expected, actual)
    if not np.isfinite(actual).all():
        return Comparison(False, float("inf"), _place(~np.isfinite(actual)), "not finite")
    swap = largest_swaps(expected, actual)
    measured = float(swap.max(initial=0.0))
    return Comparison(measured <= limit, measured, (int(swap.argmax()),) if measured else ())


def largest_swaps(expected: Array, actual: Array) -> NDArray[np.float64]:
    """Per query [Q]: how far apart in expected score two items stand that the actual scores put the other way round."""
    return swaps_of_order(expected, np.argsort(-actual, axis=1, kind="stable"))


def swaps_of_order(expected: Array, order: NDArray[np.intp]) -> NDArray[np.float64]:
    """The same, from the order [Q, G] that the actual scores give."""
    reference = np.take_along_axis(expected.astype(np.float64), order, axis=1)
    best_later = np.maximum.accumulate(reference[:, ::-1], axis=1)[:, ::-1]
    found: NDArray[np.float64] = (best_later - reference).max(axis=1, initial=0.0)
    return found


def _another_shape(expected: Array, actual: Array) -> Comparison:
    return Comparison(False, float("inf"), trouble=f"shape {list(actual.shape)}, not {list(expected.shape)}")


def _place(wrong: Array) -> tuple[int, ...]:
    return tuple(int(axis) for axis in np.argwhere(np.atleast_1d(wrong))[0])


_COMPARATORS = {
    "exact": compare_exact,
    "max_abs": compare_max_abs,
    "relative": compare_relative,
    "chord": compare_chord,
    "scale": compare_scale,
    "cosine": compare_cosine,
    "finite": compare_finite,
    "loss": compare_loss,
    "ranking": compare_ranking,
}
