"""A video file to the frames that the video tower sees.

Two passes over the file: the first lists packet times without decoding, the second decodes what the wanted frames need.
Every step gives the same bytes on every machine; what a damaged file did is in `warnings`.

Times are *clip times*: seconds from the clip's first frame, whatever number the container gives that frame.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
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
from .media.nvdec import Nvdec
from .media.timeline import Timeline, list_packets
from .pixels import resize_crop
from .sampling import ClipTimes, SamplePlan, Windows, check_cut


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
    check_cut(start, end)
    return VideoFile(path).read(spec, start, end)


def read_rgb(
    path: str | os.PathLike[str], spec: FrameSpec, *, start: float | None = None, end: float | None = None
) -> RgbFrames:
    """The frames of `read_frames` before the resize. Same arguments, same errors."""
    check_cut(start, end)
    return VideoFile(path).read_rgb(spec, start, end)


def packet_times(path: str | os.PathLike[str]) -> tuple[Fraction, ...]:
    """The clip times of the video packets, exact, sorted and distinct: what `ClipTimes` chooses from.

    Raises:
        MediaError: the file has no video packets.
    """
    return list_packets(Path(path)).times


@dataclass(frozen=True, eq=False)
class _Picture:
    image: Rgb
    damaged: bool
    turned_well: bool


class VideoFile:
    """A file whose packets are listed: any number of its parts can be read without listing them again."""

    def __init__(self, path: str | os.PathLike[str], *, nvdec: Nvdec | None = None) -> None:
        """MediaError for what is no video. What `nvdec` does not decode, the CPU does."""
        self.path = Path(path)
        self._nvdec = nvdec
        self._timeline = list_packets(self.path)
        self._times = ClipTimes(self._timeline.times, self._timeline.last_duration)

    @property
    def length(self) -> float:
        """In seconds, from the first frame until the last one stops being shown."""
        return float(self._times.end)

    def windows(self, windows: Windows) -> list[tuple[float, float | None]]:
        """Start and end of its windows in seconds, those without a frame left out; see `Windows`."""
        return self._times.windows(windows)

    def read(self, spec: FrameSpec, start: float | None = None, end: float | None = None) -> Frames:
        """See `read_frames`."""
        [found] = self.read_cuts(spec, [(start, end)])
        if isinstance(found, MediaError):
            raise found
        return found

    def read_cuts(
        self, spec: FrameSpec, cuts: Sequence[tuple[float | None, float | None]]
    ) -> list[Frames | MediaError]:
        """Each part [start, end) as `read` gives it alone, or its error; decoded together, so parts that lie together
        or overlap cost little more than one. Holds all their frames: give few at a time. UsageError for a bad cut."""
        resize = partial(resize_crop, size=spec.size)
        return [_pad(part, spec) for part in self._read_parts(spec, cuts, resize)]

    def read_rgb(self, spec: FrameSpec, start: float | None = None, end: float | None = None) -> RgbFrames:
        """See `read_rgb`."""
        [found] = self._read_parts(spec, [(start, end)], lambda rgb: rgb)
        if isinstance(found, MediaError):
            raise found
        return found

    def _read_parts(
        self, spec: FrameSpec, cuts: Sequence[tuple[float | None, float | None]], resize: Callable[[Rgb], Rgb]
    ) -> list[RgbFrames | MediaError]:
        plans = [self._times.sample(spec.count, start, end, sampling=spec.sampling) for start, end in cuts]
        keys = self._timeline.keys
        wanted = sorted({keys[index] for plan in plans for index in plan.indices})
        try:
            found = _decode(self.path, self._timeline, wanted, self._finish(resize), self._nvdec) if wanted else []
        except MediaError as error:
            if len(cuts) == 1:
                return [error]
            return [part for cut in cuts for part in self._read_parts(spec, [cut], resize)]
        pictures = dict(zip(wanted, found, strict=False))  # nothing is found where nothing can be decoded
        return [self._part(plan, cut, pictures) for plan, cut in zip(plans, cuts, strict=True)]

    def _part(
        self, plan: SamplePlan, cut: tuple[float | None, float | None], pictures: Mapping[int, tuple[int, _Picture]]
    ) -> RgbFrames | MediaError:
        start, end = cut
        if not plan.indices:
            return MediaError(
                f"{self.path} has no frame from {start or 0} s to {'its end' if end is None else f'{end} s'}; "
                f"it is {self.length:.3f} s long, choose start and end within that"
            )
        if not pictures:
            return MediaError(
                f"no frame of {self.path} can be decoded; check the file with a player or encode it again"
            )
        chosen = [self._timeline.keys[index] for index in plan.indices]
        used = {key: pictures[key] for key in sorted(set(chosen))}
        return RgbFrames(
            images=tuple(pictures[key][1].image for key in chosen),
            times=np.array([float(time) for time in plan.times]),
            warnings=(*self._timeline.warnings, *_judge(self._timeline, used)),
        )

    def _finish(self, resize: Callable[[Rgb], Rgb]) -> Callable[[VideoFrame], _Picture]:
        convert = RgbConverter()

        def finish(frame: VideoFrame) -> _Picture:
            try:
                image, turned_well = convert(frame), True
                matrix: Any = frame.side_data.get("DISPLAYMATRIX")
                if matrix is not None:
                    image, turned_well = turn_upright(image, np.frombuffer(bytes(matrix), np.int32).tolist())
                return _Picture(resize(image), frame.is_corrupt, turned_well)
            except MediaError as error:
                raise MediaError(f"{self.path}: {error}") from error

        return finish


def _pad(part: RgbFrames | MediaError, spec: FrameSpec) -> Frames | MediaError:
    if isinstance(part, MediaError):
        return part
    seen = len(part.images)
    pixels = np.zeros((spec.count, spec.size, spec.size, 3), np.uint8)
    pixels[:seen] = part.images
    times = np.full(spec.count, np.nan)
    times[:seen] = part.times
    return Frames(pixels, np.arange(spec.count) < seen, times, part.warnings)


def _decode(
    path: Path,
    timeline: Timeline,
    wanted: Sequence[int],
    finish: Callable[[VideoFrame], _Picture],
    nvdec: Nvdec | None,
) -> list[tuple[int, _Picture]]:
    """For each wanted key, the key that was found and its picture: from a part of the file, or else from the whole."""
    if nvdec is not None and (pictures := nvdec.decode(path, timeline, wanted, finish)) is not None:
        return [(key, pictures[key]) for key in wanted]
    selection = select(timeline, wanted)
    if selection is not None:
        with open_video(path) as (container, stream):
            pictures = decode_selected(container, stream, timeline, selection, wanted, finish)
        if pictures is not None:
            return [(key, pictures[key]) for key in wanted]
    with open_video(path) as (container, stream):
        return pick_frames(decode_all(container, stream, timeline), wanted, finish)


def _judge(timeline: Timeline, used: Mapping[int, tuple[int, _Picture]]) -> Iterator[str]:
    """What is to be said about the frames that were found, by the key that was wanted."""
    for key, (found, picture) in used.items():
        time = f"the frame at {float(timeline.times[bisect_left(timeline.keys, key)]):.3f} s"
        if found != key:
            other = f"the {'nearest earlier' if found < key else 'first later'} one"
            yield f"{time} cannot be decoded, {other} stands in for it"
        elif picture.damaged:
            yield f"{time} is damaged, the decoder filled in what is missing"
    if not all(picture.turned_well for _, picture in used.values()):
        yield "the rotation that the file asks for is no multiple of 90 degrees, it was rounded or left out"
