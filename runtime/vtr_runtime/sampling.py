"""Which frames of a clip are seen: exact arithmetic on presentation times, so that every host picks the same ones."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from statistics import median

from .errors import UsageError


@dataclass(frozen=True)
class SamplePlan:
    """At most `count` frames in order of time; a frame that stands long may come several times.

    `indices` point into the sorted, distinct packet times of the whole clip; `times` are those times.
    Both are empty when `start` and `end` leave no frame.
    """

    indices: tuple[int, ...]
    times: tuple[Fraction, ...]


def check_cut(start: float | None, end: float | None) -> None:
    """Refuse a `start` or an `end` (seconds) that no clip could have.

    Raises:
        UsageError: negative, infinite or NaN, or `end` not after `start`.
    """
    for name, value in (("start", start), ("end", end)):
        if value is not None and not (math.isfinite(value) and value >= 0):
            raise UsageError(f"{name} is {value}; give seconds from the clip's first frame, 0 or more, or leave it out")
    if end is not None and end <= (start or 0):
        raise UsageError(f"end is {end} and start is {start or 0}; end must lie after start")


def uniform_times(
    packet_times: Sequence[Fraction],
    duration_of_last: Fraction | None,
    count: int,
    start: float | None = None,
    end: float | None = None,
) -> SamplePlan:
    """Spread `count` frames evenly: the middles of `count` equal parts of [t0, t1), each with the frame shown then.

    Args:
        packet_times: presentation times in seconds, in any order. Equal times are one frame.
        duration_of_last: seconds that the frame with the largest time is shown; None or 0 when the file does not say,
            then the median difference between neighbours stands for it.
        count: T. A clip of at most T frames gives each of them once.
        start, end: keep frames with start <= time < end, before all else; t0 and t1 are then of what is kept. A time
            is compared as the float64 nearest to it, so 0.1 means 1/10 and a time that was reported can be given back.

    Raises:
        UsageError: `count` below 1, or a bad `start` or `end` (see `check_cut`).
    """
    if count < 1:
        raise UsageError(f"count is {count}; a clip needs at least 1 frame")
    check_cut(start, end)
    times = sorted(set(packet_times))
    kept = [index for index, time in enumerate(times) if _within(time, start, end)]
    if len(kept) > count:
        t0, t1 = times[kept[0]], _end_of(times, kept, duration_of_last)
        middles = (t0 + (t1 - t0) * Fraction(2 * part + 1, 2 * count) for part in range(count))
        kept = [bisect_right(times, middle) - 1 for middle in middles]
    return SamplePlan(tuple(kept), tuple(times[index] for index in kept))


def _within(time: Fraction, start: float | None, end: float | None) -> bool:
    return (start is None or float(time) >= start) and (end is None or float(time) < end)


def _end_of(times: Sequence[Fraction], kept: Sequence[int], duration_of_last: Fraction | None) -> Fraction:
    """When the last kept frame stops being shown: when the clip's next one begins, else after its duration."""
    last = kept[-1]
    if last + 1 < len(times):
        return times[last + 1]
    return times[last] + (duration_of_last or median(b - a for a, b in pairwise(times[index] for index in kept)))
