"""Which frames of a clip are seen: exact arithmetic on presentation times, so that every host picks the same ones."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import pairwise
from statistics import median
from typing import Literal

from .errors import UsageError

Sampling = Literal["uniform", "fps1"]


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


class ClipTimes:
    """The times of a clip's frames, in order and each once, ready for any number of cuts.

    Args:
        packet_times: presentation times in seconds, in any order. Equal times are one frame.
        duration_of_last: seconds that the frame with the largest time is shown; None or 0 when the file does not say,
            then the median difference between neighbours stands for it.
    """

    def __init__(self, packet_times: Iterable[Fraction], duration_of_last: Fraction | None) -> None:
        self._times = sorted(set(packet_times))
        self._seconds = [float(time) for time in self._times]
        self._duration_of_last = duration_of_last

    @property
    def end(self) -> Fraction:
        """When the last frame stops being shown."""
        return self._end_of(range(len(self._times)))

    def windows(self, windows: Windows) -> list[tuple[float, float | None]]:
        """The windows of the clip in which a frame begins. A last one behind the last frame's beginning would hold
        none, as would one within a gap."""
        return [cut for cut in windows.cuts(float(self.end)) if self._kept(*cut)]

    def _kept(self, start: float | None, end: float | None) -> range:
        first = 0 if start is None else bisect_left(self._seconds, start)
        return range(first, len(self._seconds) if end is None else bisect_left(self._seconds, end))

    def sample(
        self, count: int, start: float | None = None, end: float | None = None, *, sampling: Sampling = "uniform"
    ) -> SamplePlan:
        """At most `count` frames of [start, end).

        Args:
            count: T.
            sampling: `uniform`: the middles of T equal parts of [t0, t1), each with the frame shown then; a clip of at
                most T frames gives each of them once. `fps1`: CLIP4Clip's, one frame a second, and T of these where
                there are more (see `_one_a_second`).
            start, end: keep frames with start <= time < end, before all else; t0 and t1 are then of what is kept. A
                time is compared as the float64 nearest to it, so 0.1 means 1/10 and a time that was reported can be
                given back.

        Raises:
            UsageError: `count` below 1, or a bad `start` or `end` (see `check_cut`).
        """
        if count < 1:
            raise UsageError(f"count is {count}; a clip needs at least 1 frame")
        check_cut(start, end)
        choose = {"uniform": self._uniform, "fps1": self._one_a_second}[sampling]
        chosen = choose(self._kept(start, end), count)
        return SamplePlan(tuple(chosen), tuple(self._times[index] for index in chosen))

    def _uniform(self, kept: range, count: int) -> Sequence[int]:
        if len(kept) <= count:
            return kept
        t0, t1 = self._times[kept[0]], self._end_of(kept)
        middles = (t0 + (t1 - t0) * Fraction(2 * part + 1, 2 * count) for part in range(count))
        return [bisect_right(self._times, middle) - 1 for middle in middles]

    def _one_a_second(self, kept: range, count: int) -> Sequence[int]:
        """CLIP4Clip's rule: every F-th frame from the first one on, F the frame rate rounded down (29.97 gives 29), and
        of more than `count` the ones at the places floor(j (N - 1) / (count - 1))."""
        seconds = kept[:: self._frames_a_second]
        if len(seconds) <= count:
            return seconds
        return [seconds[place * (len(seconds) - 1) // max(count - 1, 1)] for place in range(count)]

    @cached_property
    def _frames_a_second(self) -> int:
        """F of the whole clip: its frames after the first one, over the time that they take, rounded down, 1 at least.

        Where all times are whole hundredths or thousandths of a second the container may have rounded them, so the time
        counts as one such unit shorter, or 24 frames a second would come out as 23."""
        offsets = [time - self._times[0] for time in self._times]
        units = (unit for unit in (100, 1000) if all(unit % offset.denominator == 0 for offset in offsets))
        unit = next(units, None)
        taken = offsets[-1] - (Fraction(1, unit) if unit else 0)
        return max(1, math.floor((len(offsets) - 1) / taken)) if taken > 0 else len(offsets)

    def _end_of(self, kept: Sequence[int]) -> Fraction:
        """When the last kept frame stops being shown: when the clip's next one begins, else after its duration."""
        last, times = kept[-1], self._times
        if last + 1 < len(times):
            return times[last + 1]
        between = [b - a for a, b in pairwise(times[index] for index in kept)]
        return times[last] + (self._duration_of_last or (median(between) if between else Fraction(0)))


@dataclass(frozen=True)
class Windows:
    """Cut a long clip into parts of `window` seconds, one every `stride` seconds.

    Raises:
        UsageError: not above 0, or a stride above the window, which would leave parts of the clip unseen."""

    window: float
    stride: float

    def __post_init__(self) -> None:
        for name, value in (("window", self.window), ("stride", self.stride)):
            if not (math.isfinite(value) and value > 0):
                raise UsageError(f"{name} is {value}; give seconds above 0")
        if self.stride > self.window:
            raise UsageError(
                f"stride is {self.stride} and window {self.window}; a stride above the window leaves parts unseen"
            )

    def cuts(self, length: float) -> list[tuple[float, float | None]]:
        """Start and end in seconds: from 0 every stride, up to the first one that reaches the clip's end, which the
        last one is cut at (None, the clip's own end, where its length is not known)."""
        count = max(1, math.ceil((length - self.window) / self.stride - 1e-9) + 1)
        return [(i * self.stride, min(i * self.stride + self.window, length) or None) for i in range(count)]
