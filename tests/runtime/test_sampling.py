from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vtr_runtime.errors import UsageError
from vtr_runtime.sampling import ClipTimes, SamplePlan


def uniform_times(
    times: Sequence[Fraction],
    duration: Fraction | None,
    count: int,
    start: float | None = None,
    end: float | None = None,
) -> SamplePlan:
    return ClipTimes(times, duration).sample(count, start, end)


def naive(times: list[Fraction], duration: Fraction | None, count: int) -> list[Fraction]:
    """The rule as it is written: for every t_i walk through all frames."""
    times = sorted(set(times))
    if len(times) <= count:
        return times
    gaps = sorted(times[i + 1] - times[i] for i in range(len(times) - 1))
    half = len(gaps) // 2
    middle = gaps[half] if len(gaps) % 2 else (gaps[half - 1] + gaps[half]) / 2
    t0, t1 = times[0], times[-1] + (duration or middle)
    chosen = []
    for i in range(count):
        t = t0 + (i + Fraction(1, 2)) * (t1 - t0) / count
        shown = times[0]
        for time in times:
            if time <= t:
                shown = time
        chosen.append(shown)
    return chosen


seconds = st.fractions(min_value=-5, max_value=50, max_denominator=90000)
clips = st.lists(seconds, min_size=1, max_size=40)
durations = st.none() | st.fractions(min_value=0, max_value=2, max_denominator=90000)


@given(clips, durations, st.integers(1, 16))
@example([Fraction(i, 30) for i in range(13)], None, 12)
@example([Fraction(0)], None, 1)
def test_the_rule_in_exact_arithmetic(times: list[Fraction], duration: Fraction | None, count: int) -> None:
    assert list(uniform_times(times, duration, count).times) == naive(times, duration, count)


@given(clips, durations, st.integers(1, 16), st.randoms())
def test_properties(times: list[Fraction], duration: Fraction | None, count: int, random: object) -> None:
    plan = uniform_times(times, duration, count)
    shuffled = list(times)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert uniform_times(shuffled, duration, count) == plan

    distinct = sorted(set(times))
    assert [distinct[index] for index in plan.indices] == list(plan.times)
    assert list(plan.times) == sorted(plan.times)
    assert len(plan.times) == min(count, len(distinct))
    if len(distinct) <= count:
        assert list(plan.indices) == list(range(len(distinct)))


@given(clips, durations, st.integers(1, 16), seconds)
def test_a_shift_of_all_times_changes_nothing(
    times: list[Fraction], duration: Fraction | None, count: int, shift: Fraction
) -> None:
    shifted = uniform_times([time + shift for time in times], duration, count)
    assert shifted.indices == uniform_times(times, duration, count).indices


@given(clips, durations, st.integers(1, 16), st.floats(0, 40), st.floats(0.01, 20))
def test_a_cut_keeps_only_what_lies_within(
    times: list[Fraction], duration: Fraction | None, count: int, start: float, length: float
) -> None:
    end = start + length
    plan = uniform_times(times, duration, count, start, end)
    inside = [time for time in sorted(set(times)) if start <= float(time) < end]
    assert set(plan.times) <= set(inside)
    assert len(plan.times) == min(count, len(inside))


def test_thirty_frames_by_hand() -> None:
    # One second at 30 fps, T = 4: middles at 1/8, 3/8, 5/8, 7/8 s, that is 3.75, 11.25, 18.75, 26.25 frames.
    plan = uniform_times([Fraction(i, 30) for i in range(30)], Fraction(1, 30), 4)
    assert plan.indices == (3, 11, 18, 26)


def test_a_frame_that_stands_long_comes_several_times() -> None:
    times = [Fraction(0), Fraction(1), Fraction(2), Fraction(10)]
    assert uniform_times(times, Fraction(2), 3).indices == (2, 2, 3)  # middles at 2, 6 and 10 s


def test_the_last_duration_moves_the_end() -> None:
    times = [Fraction(i) for i in range(4)]
    assert uniform_times(times, Fraction(1), 2).indices == (1, 3)  # [0, 4): 1 and 3
    assert uniform_times(times, Fraction(8), 2).indices == (2, 3)  # [0, 11): 2.75 and 8.25
    assert uniform_times(times, Fraction(0), 2).indices == (1, 3)  # unknown: the median difference, 1 s


def test_the_end_of_a_cut_is_where_the_next_frame_begins() -> None:
    times = [Fraction(0), Fraction(1), Fraction(2), Fraction(12), Fraction(13)]
    # Kept: 0, 1, 2; the frame at 2 is shown until 12, so the middles are 3 and 9.
    assert uniform_times(times, Fraction(1), 2, 0.0, 2.5).indices == (2, 2)


def test_a_decimal_means_itself_and_a_reported_time_can_be_given_back() -> None:
    tenths = [Fraction(i, 10) for i in range(10)]
    assert uniform_times(tenths, None, 12, 0.1, 0.3).indices == (1, 2)  # start is kept, end is not
    thirtieths = [Fraction(i, 30) for i in range(30)]
    for index, time in enumerate(thirtieths[1:], 1):
        assert uniform_times(thirtieths, None, 30, float(time)).indices[0] == index
        assert uniform_times(thirtieths, None, 30, end=float(time)).indices[-1] == index - 1


def test_a_cut_without_frames_is_an_empty_plan() -> None:
    assert uniform_times([Fraction(1)], None, 4, 2.0, 3.0).times == ()


@pytest.mark.parametrize("bad", [-1.0, math.nan, math.inf])
@pytest.mark.parametrize("name", ["start", "end"])
def test_refuses_seconds_that_no_clip_has(name: str, bad: float) -> None:
    with pytest.raises(UsageError, match=f"{name} is {bad}"):
        uniform_times([Fraction(0)], None, 4, **{name: bad})


@pytest.mark.parametrize(("start", "end"), [(2.0, 2.0), (2.0, 1.0), (None, 0.0)])
def test_refuses_an_end_that_is_not_after_the_start(start: float | None, end: float) -> None:
    with pytest.raises(UsageError, match="end must lie after start"):
        uniform_times([Fraction(0)], None, 4, start, end)


def test_refuses_a_count_below_one() -> None:
    with pytest.raises(UsageError, match="count is 0"):
        uniform_times([Fraction(0)], None, 0)


# CLIP4Clip's rule, `fps1`.


def clip4clip_indices(frames: int, rate: float, most: int) -> list[int]:
    """What CLIP4Clip's reader asks OpenCV for: seconds 0 to the end, the end included, each times the frame rate cut to
    an integer; then its choice of `most` (slice_framepos 2), in float64 as numpy does it."""
    fps = int(rate)
    seconds = range((frames + fps - 1) // fps + 1)
    read = [second * fps for second in seconds if second * fps < frames]
    if most < len(read):
        read = [read[i] for i in np.linspace(0, len(read) - 1, num=most, dtype=int)]
    return read


RATES = [Fraction(rate) for rate in (1, 5, 10, 12, 15, 24, 25, 30, 50, 60)]
RATES += [Fraction(rate * 1000, 1001) for rate in (24, 30, 60)] + [Fraction(25, 2), Fraction(15000, 1001)]


def rounded(time: Fraction, unit: Fraction | None) -> Fraction:
    """As a container stores it: half a unit up, or as it is."""
    return time if unit is None else math.floor(time / unit + Fraction(1, 2)) * unit


@pytest.mark.parametrize("unit", [None, Fraction(1, 1000), Fraction(1, 90000)], ids=["exact", "matroska", "mpeg-ts"])
@pytest.mark.parametrize("rate", RATES, ids=str)
def test_fps1_picks_the_frames_that_clip4clip_picks(rate: Fraction, unit: Fraction | None) -> None:
    """Frames of a constant rate, up to 50 s, for 1, 12 and 32 of them, also with times rounded as Matroska does."""
    for frames in (1, 2, 7, 29, 30, 45, 59, 62, 100, 299, 300, 301, 720, 1443, int(50 * rate)):
        times = [rounded(i / rate, unit) for i in range(frames)]
        for most in (1, 12, 32):
            plan = ClipTimes(times, 1 / rate).sample(most, sampling="fps1")
            assert list(plan.indices) == clip4clip_indices(frames, float(rate), most), (frames, most)


def test_fps1_of_a_second_in_milliseconds_cannot_tell_2997_from_30() -> None:
    """The one place where rounded times are not enough: a clip of about a second."""
    times = [rounded(Fraction(i * 1001, 30000), Fraction(1, 1000)) for i in range(31)]
    assert ClipTimes(times, None).sample(12, sampling="fps1").indices == (0, 30)
    assert clip4clip_indices(31, 29.97, 12) == [0, 29]


@pytest.mark.parametrize("rate", [5, 10, 15, 20, 24, 25, 30, 50])
def test_fps1_of_a_gif_whose_delays_are_hundredths(rate: int) -> None:
    times = [rounded(Fraction(i, rate), Fraction(1, 100)) for i in range(7 * rate)]
    plan = ClipTimes(times, Fraction(1, 100)).sample(12, sampling="fps1")
    assert list(plan.indices) == [second * rate for second in range(7)]


def naive_fps1(times: list[Fraction], count: int) -> list[Fraction]:
    """The rule as it is written in docs/frames-and-text.md, over a plain list."""
    times = sorted(set(times))
    offsets = [time - times[0] for time in times]
    step = 1
    if len(times) > 1:
        span = offsets[-1]
        if all((offset * 100).denominator == 1 for offset in offsets):
            span -= Fraction(1, 100)
        elif all((offset * 1000).denominator == 1 for offset in offsets):
            span -= Fraction(1, 1000)
        step = len(times)
        if span > 0:
            step = 1
            while (len(times) - 1) / span >= step + 1:
                step += 1
    seconds = [time for number, time in enumerate(times) if number % step == 0]
    if len(seconds) <= count:
        return seconds
    if count == 1:
        return seconds[:1]
    return [seconds[math.floor(Fraction(j * (len(seconds) - 1), count - 1))] for j in range(count)]


millis = st.integers(0, 50_000).map(lambda time: Fraction(time, 1000))


@given(
    st.lists(seconds | millis, min_size=1, max_size=60) | st.lists(millis, min_size=1, max_size=60), st.integers(1, 9)
)
def test_the_rule_of_fps1_in_exact_arithmetic(times: list[Fraction], count: int) -> None:
    plan = ClipTimes(times, None).sample(count, sampling="fps1")
    assert list(plan.times) == naive_fps1(times, count)
    assert plan.indices[0] == 0
    assert len(set(plan.indices)) == len(plan.indices) <= count


@pytest.mark.parametrize(("most", "lengths"), [(8, 0), (12, 0), (16, 0), (32, 0), (64, 24)])
def test_numpys_linspace_is_the_exact_choice(most: int, lengths: int) -> None:
    """CLIP4Clip cuts float64 products to integers. For 64 frames some of them fall short: of 24 lengths below 1,000 s
    it takes the second before."""
    other = 0
    for found in range(most + 1, 1000):
        exact = np.array([j * (found - 1) // (most - 1) for j in range(most)])
        theirs = np.linspace(0, found - 1, num=most, dtype=int)
        assert set(exact - theirs) <= {0, 1}
        other += not np.array_equal(exact, theirs)
    assert other == lengths


def test_fps1_begins_with_the_cut() -> None:
    times = [Fraction(i, 10) for i in range(100)]
    assert ClipTimes(times, None).sample(12, 2.05, 5.0, sampling="fps1").indices == (21, 31, 41)
    assert ClipTimes(times, None).sample(2, 2.05, 5.0, sampling="fps1").indices == (21, 41)
    assert ClipTimes(times, None).sample(12, 20.0, sampling="fps1").indices == ()
