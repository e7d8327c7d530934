"""Hosts that read clips wrongly: other times, other frames, other colours, another resize."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray
from PIL import Image

from vtr_runtime.media.colour import RgbConverter, turn_upright
from vtr_runtime.media.timeline import Timeline, list_packets
from vtr_runtime.pixels import resize_crop
from vtr_runtime.sampling import ClipTimes, SamplePlan, Sampling

from .mutant import HostMutant, Patch

Rgb = NDArray[np.uint8]
BICUBIC, BILINEAR = Image.Resampling.BICUBIC, Image.Resampling.BILINEAR


def _in_milliseconds(path: Path) -> Timeline:
    found = list_packets(path)
    return replace(found, times=tuple(Fraction(round(1000 * time), 1000) for time in found.times))


def _as_the_container_counts(path: Path) -> Timeline:
    found = list_packets(path)
    if len(found.times) < 2:
        return found
    unit = found.times[1] / (found.keys[1] - found.keys[0])
    return replace(found, times=tuple(key * unit for key in found.keys))


def _sampler(choose: Callable[[Sequence[Fraction], Fraction, int], list[int]]) -> tuple[Patch, ...]:
    """Of clips with more than T frames, `choose` gives the T numbers from their times, their end and T."""

    class Wrong(ClipTimes):
        def sample(
            self, count: int, start: float | None = None, end: float | None = None, *, sampling: Sampling = "uniform"
        ) -> SamplePlan:
            right = super().sample(count, start, end, sampling=sampling)
            if len(self._times) <= count:
                return right
            chosen = tuple(min(index, len(self._times) - 1) for index in choose(self._times, self.end, count))
            return SamplePlan(chosen, tuple(self._times[index] for index in chosen))

    return (Patch("vtr_runtime.video.ClipTimes", Wrong),)


def _shown_at(times: Sequence[Fraction], moment: Fraction) -> int:
    return bisect_right(times, moment) - 1


def _one_later(times: Sequence[Fraction], end: Fraction, count: int) -> list[int]:
    return [_shown_at(times, end * Fraction(2 * i + 1, 2 * count)) + 1 for i in range(count)]


def _last_of_each_part(times: Sequence[Fraction], end: Fraction, count: int) -> list[int]:
    return [_shown_at(times, end * Fraction(i + 1, count)) for i in range(count)]


def _first_of_each_part(times: Sequence[Fraction], end: Fraction, count: int) -> list[int]:
    return [_shown_at(times, end * Fraction(i, count)) for i in range(count)]


def _nearest(times: Sequence[Fraction], end: Fraction, count: int) -> list[int]:
    middles = [end * Fraction(2 * i + 1, 2 * count) for i in range(count)]
    return [min(range(len(times)), key=lambda index: abs(times[index] - middle)) for middle in middles]


def _by_count(times: Sequence[Fraction], _: Fraction, count: int) -> list[int]:
    return [len(times) * (2 * i + 1) // (2 * count) for i in range(count)]


def _first_to_last(times: Sequence[Fraction], _: Fraction, count: int) -> list[int]:
    return [round(index) for index in np.linspace(0, len(times) - 1, count)]


class _Repeating(ClipTimes):
    def sample(
        self, count: int, start: float | None = None, end: float | None = None, *, sampling: Sampling = "uniform"
    ) -> SamplePlan:
        right = super().sample(count, start, end, sampling=sampling)
        places = [place % len(right.indices) for place in range(count)]
        return SamplePlan(tuple(right.indices[p] for p in places), tuple(right.times[p] for p in places))


class _Bgr(RgbConverter):
    def __call__(self, frame: VideoFrame) -> Rgb:
        return np.ascontiguousarray(super().__call__(frame)[..., ::-1])


def _turned_the_other_way(rgb: Rgb, matrix: Sequence[int]) -> tuple[Rgb, bool]:
    upright, well = turn_upright(rgb, matrix)
    return np.ascontiguousarray(np.rot90(upright, 2)), well


def _over_white(rgba: Rgb) -> Rgb:
    colour, alpha = rgba[..., :3].astype(np.uint16), rgba[..., 3:].astype(np.uint16)
    return ((colour * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


def _over_black_twice(rgba: Rgb) -> Rgb:
    colour, alpha = rgba[..., :3].astype(np.uint32), rgba[..., 3:].astype(np.uint32)
    return ((colour * alpha * alpha + 32512) // 65025).astype(np.uint8)


def _sides(rgb: Rgb, size: int, *, rounded: bool = False) -> tuple[int, int]:
    """Width and height after the resize, the short side `size`."""
    height, width = rgb.shape[:2]
    long = size * max(width, height) / min(width, height)
    new = round(long) if rounded else int(long)
    return (size, new) if width <= height else (new, size)


def _cut(image: Image.Image, size: int, offset: Callable[[int], int]) -> Rgb:
    left, top = offset(image.width - size), offset(image.height - size)
    return np.asarray(image.crop((left, top, left + size, top + size)))


def _half(rest: int) -> int:
    return round(rest / 2)


def _bilinear(rgb: Rgb, size: int) -> Rgb:
    return _cut(Image.fromarray(rgb).resize(_sides(rgb, size), BILINEAR), size, _half)


def _without_antialias(rgb: Rgb, size: int) -> Rgb:
    """Bicubic between the four nearest pixels, as OpenCV's resize and GPU samplers do."""
    width, height = _sides(rgb, size)
    scale = (rgb.shape[1] / width, 0.0, 0.0, 0.0, rgb.shape[0] / height, 0.0)
    return _cut(
        Image.fromarray(rgb).transform((width, height), Image.Transform.AFFINE, scale, resample=BICUBIC), size, _half
    )


def _crop_one_right(rgb: Rgb, size: int) -> Rgb:
    return _cut(
        Image.fromarray(rgb).resize(_sides(rgb, size), BICUBIC), size, lambda rest: min(_half(rest) + 1, max(rest, 0))
    )


def _crop_rounded_down(rgb: Rgb, size: int) -> Rgb:
    return _cut(Image.fromarray(rgb).resize(_sides(rgb, size), BICUBIC), size, lambda rest: rest // 2)


def _long_side_rounded(rgb: Rgb, size: int) -> Rgb:
    return _cut(Image.fromarray(rgb).resize(_sides(rgb, size, rounded=True), BICUBIC), size, _half)


def _stretched(rgb: Rgb, size: int) -> Rgb:
    return np.asarray(Image.fromarray(rgb).resize((size, size), BICUBIC))


def _letterboxed(rgb: Rgb, size: int) -> Rgb:
    image = Image.fromarray(rgb)
    image.thumbnail((size, size), BICUBIC)
    square = Image.new("RGB", (size, size))
    square.paste(image, ((size - image.width) // 2, (size - image.height) // 2))
    return np.asarray(square)


def _cropped_first(rgb: Rgb, size: int) -> Rgb:
    """The middle square, then the resize: what a crop in the decoder's own resolution gives."""
    side = min(rgb.shape[:2])
    top, left = (rgb.shape[0] - side) // 2, (rgb.shape[1] - side) // 2
    return resize_crop(np.ascontiguousarray(rgb[top : top + side, left : left + side]), size)


def _rgb(name: str, mistake: str, target: str, replacement: Any) -> HostMutant:
    return HostMutant(name=name, mistake=mistake, expected=("rgb",), patches=(Patch(target, replacement),))


def _indices(name: str, mistake: str, patches: tuple[Patch, ...]) -> HostMutant:
    return HostMutant(name=name, mistake=mistake, expected=("indices",), patches=patches)


def _pixels(name: str, mistake: str, resize: Callable[[Rgb, int], Rgb]) -> HostMutant:
    patches = (Patch("vtr_runtime.video.resize_crop", resize),)
    return HostMutant(name=name, mistake=mistake, expected=("pixels",), patches=patches)


COLOUR = "vtr_runtime.media.colour"
FRAMES = (
    HostMutant(
        name="times-in-milliseconds",
        mistake="packet times are rounded to milliseconds",
        expected=("container",),
        patches=(Patch("vtr_runtime.video.list_packets", _in_milliseconds),),
    ),
    HostMutant(
        name="late-start",
        mistake="times are the container's, not counted from the first frame",
        expected=("container",),
        patches=(Patch("vtr_runtime.video.list_packets", _as_the_container_counts),),
    ),
    _indices("frames-off-by-one", "the frame after the right one is taken", _sampler(_one_later)),
    _indices("last-of-segment", "the last frame of each segment instead of its middle", _sampler(_last_of_each_part)),
    _indices(
        "first-of-segment", "the first frame of each segment instead of its middle", _sampler(_first_of_each_part)
    ),
    _indices("nearest-frame", "the frame nearest in time instead of the one that is shown", _sampler(_nearest)),
    _indices("sampled-by-count", "frames are counted, as if all stood equally long", _sampler(_by_count)),
    _indices("first-to-last", "evenly from the first frame to the last (linspace)", _sampler(_first_to_last)),
    _indices(
        "short-clip-repeated",
        "a clip of fewer than T frames is repeated instead of masked",
        (Patch("vtr_runtime.video.ClipTimes", _Repeating),),
    ),
    _rgb("bgr", "blue and red are swapped", "vtr_runtime.video.RgbConverter", _Bgr),
    _rgb(
        "rotation-ignored",
        "frames stay as they are stored",
        "vtr_runtime.video.turn_upright",
        lambda rgb, matrix: (rgb, True),  # noqa: ARG005
    ),
    _rgb("rotation-reversed", "frames are upside down", "vtr_runtime.video.turn_upright", _turned_the_other_way),
    _rgb(
        "full-range-as-limited",
        "full-range colour is read as limited",
        f"{COLOUR}._RANGES",
        {1: "limited", 2: "limited"},
    ),
    _rgb("bt709-for-all", "BT.601 is read as BT.709", f"{COLOUR}._MATRICES", dict.fromkeys(range(16), "bt709")),
    _rgb("default-scaler", "swscale with its default flags", f"{COLOUR}.SCALE_FLAGS", "bicubic"),
    _rgb(
        "alpha-dropped", "the colour beneath a transparent pixel shows", f"{COLOUR}._over_black", lambda x: x[..., :3]
    ),
    _rgb("alpha-over-white", "transparent frames lie over white", f"{COLOUR}._over_black", _over_white),
    _rgb("alpha-twice", "straight alpha is multiplied in twice", f"{COLOUR}._over_black", _over_black_twice),
    _pixels("bilinear", "bilinear instead of bicubic, with antialias", _bilinear),
    _pixels("no-antialias", "bicubic without antialias", _without_antialias),
    _pixels("crop-off-by-one", "the crop begins a pixel too far", _crop_one_right),
    _pixels("crop-rounded-down", "half a pixel of the crop is rounded down instead of to even", _crop_rounded_down),
    _pixels("long-side-rounded", "the long side is rounded instead of cut", _long_side_rounded),
    _pixels("stretched", "frames are stretched to a square instead of cropped", _stretched),
    _pixels("letterboxed", "frames are fitted into a black square instead of cropped", _letterboxed),
    _pixels("cropped-before-resize", "the middle square is cut out first, then resized", _cropped_first),
)
