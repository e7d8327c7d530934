"""A video file to the frames that the video tower sees.

Two passes over the file: the first lists packet times without decoding, the second decodes what the wanted frames need.
Every step gives the same bytes on every machine; what a damaged file did is in `warnings`.

Times are *clip times*: seconds from the clip's first frame, whatever number the container gives that frame.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from .errors import MediaError
from .manifest import FrameSpec
from .media.colour import Rgb, RgbConverter, turn_upright
from .media.container import open_video
from .media.decode import decode_all, decode_selected, pick_frames, select
from .media.timeline import Timeline, list_packets
from .pixels import resize_crop
from .sampling import check_cut, uniform_times


@dataclass(frozen=True, eq=False)
class Frames:
    """A clip as the video tower takes it.

    pixels: uint8 [T, S, S, 3], zero where masked. mask: bool [T], true where there is a frame; never all false.
    times: float64 [T], clip time in seconds, NaN where masked. warnings: one sentence per thing that was not right.
    """

    pixels: Rgb
    mask: NDArray[np.bool_]
    times: NDArray[np.float64]
    warnings: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class RgbFrames:
    """The same frames upright and full-size, before the resize: uint8 [H, W, 3] each, only those that are there."""

    images: tuple[Rgb, ...]
    times: NDArray[np.float64]
    warnings: tuple[str, ...]


def read_frames(
    path: str | os.PathLike[str], spec: FrameSpec, *, start: float | None = None, end: float | None = None
) -> Frames:
    """Read the T frames of a clip, or of its part [start, end) in clip time.

    Raises:
        UsageError: a bad `start` or `end`.
        MediaError: no frame can be had; the sentence names the path.
    """
    clip = _read(Path(path), spec, start, end, lambda rgb: resize_crop(rgb, spec.size))
    seen = len(clip.images)
    pixels = np.zeros((spec.count, spec.size, spec.size, 3), np.uint8)
    pixels[:seen] = clip.images
    times = np.full(spec.count, np.nan)
    times[:seen] = clip.times
    return Frames(pixels, np.arange(spec.count) < seen, times, clip.warnings)


def read_rgb(
    path: str | os.PathLike[str], spec: FrameSpec, *, start: float | None = None, end: float | None = None
) -> RgbFrames:
    """The frames of `read_frames` before the resize. Same arguments, same errors."""
    return _read(Path(path), spec, start, end, lambda rgb: rgb)


def packet_times(path: str | os.PathLike[str]) -> tuple[Fraction, ...]:
    """The clip times of the video packets, exact, sorted and distinct: what `uniform_times` chooses from.

    Raises:
        MediaError: the file has no video packets.
    """
    return list_packets(Path(path)).times


@dataclass(frozen=True, eq=False)
class _Picture:
    image: Rgb
    damaged: bool
    turned_well: bool


def _read(
    path: Path, spec: FrameSpec, start: float | None, end: float | None, resize: Callable[[Rgb], Rgb]
) -> RgbFrames:
    check_cut(start, end)
    timeline = list_packets(path)
    plan = uniform_times(timeline.times, timeline.last_duration, spec.count, start, end)
    if not plan.indices:
        length = float(timeline.times[-1] + (timeline.last_duration or 0))
        raise MediaError(
            f"{path} has no frame from {start or 0} s to {'its end' if end is None else f'{end} s'}; "
            f"it is {length:.3f} s long, choose start and end within that"
        )
    convert = RgbConverter()

    def finish(frame: VideoFrame) -> _Picture:
        try:
            image, turned_well = convert(frame), True
            matrix: Any = frame.side_data.get("DISPLAYMATRIX")
            if matrix is not None:
                image, turned_well = turn_upright(image, np.frombuffer(bytes(matrix), np.int32).tolist())
            return _Picture(resize(image), frame.is_corrupt, turned_well)
        except MediaError as error:
            raise MediaError(f"{path}: {error}") from error

    wanted = sorted({timeline.keys[index] for index in plan.indices})
    found = _decode(path, timeline, wanted, finish)
    if not found:
        raise MediaError(f"no frame of {path} can be decoded; check the file with a player or encode it again")
    pictures = {key: picture for key, (_, picture) in zip(wanted, found, strict=True)}
    return RgbFrames(
        images=tuple(pictures[timeline.keys[index]].image for index in plan.indices),
        times=np.array([float(time) for time in plan.times]),
        warnings=(*timeline.warnings, *_judge(timeline, wanted, found)),
    )


def _decode(
    path: Path, timeline: Timeline, wanted: Sequence[int], finish: Callable[[VideoFrame], _Picture]
) -> list[tuple[int, _Picture]]:
    """For each wanted key, the key that was found and its picture: from a part of the file, or else from the whole."""
    selection = select(timeline, wanted)
    if selection is not None:
        with open_video(path) as (container, stream):
            pictures = decode_selected(container, stream, timeline, selection, wanted, finish)
        if pictures is not None:
            return [(key, pictures[key]) for key in wanted]
    with open_video(path) as (container, stream):
        return pick_frames(decode_all(container, stream, timeline), wanted, finish)


def _judge(timeline: Timeline, wanted: Sequence[int], found: Sequence[tuple[int, _Picture]]) -> Iterator[str]:
    """What is to be said about the frames that were found for the wanted ones."""
    time_of = dict(zip(timeline.keys, timeline.times, strict=True))
    for key, (used, picture) in zip(wanted, found, strict=True):
        time = f"the frame at {float(time_of[key]):.3f} s"
        if used != key:
            other = f"the {'nearest earlier' if used < key else 'first later'} one"
            yield f"{time} cannot be decoded, {other} stands in for it"
        elif picture.damaged:
            yield f"{time} is damaged, the decoder filled in what is missing"
    if not all(picture.turned_well for _, picture in found):
        yield "the rotation that the file asks for is no multiple of 90 degrees, it was rounded or left out"
