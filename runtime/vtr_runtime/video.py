"""A video file to the frames that the video tower sees.

Two passes over the file: the first lists packet times without decoding, the second decodes from the beginning until the
last wanted frame is out. Every step gives the same bytes on every machine; what a damaged file did is in `warnings`.

Times are *clip times*: seconds from the clip's first frame, whatever number the container gives that frame.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import av
import numpy as np
from av.container import InputContainer
from av.filter import Graph
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from .errors import MediaError
from .manifest import FrameSpec
from .pixels import resize_crop
from .sampling import check_cut, uniform_times

Rgb = NDArray[np.uint8]
Item = TypeVar("Item")
Result = TypeVar("Result")

MAX_SIDE = 16384
MAX_PIXELS = 2**28

# These flags give the same bytes in FFmpeg 5.1 and 8, with and without SIMD; the default ones do not.
SCALE_FLAGS = "bicubic+accurate_rnd+full_chroma_int+full_chroma_inp+bitexact"

# AVColorSpace and AVColorRange to the names that the scale filter knows; what is not here counts as unspecified.
_MATRICES = {1: "bt709", 4: "fcc", 5: "bt470", 6: "smpte170m", 7: "smpte240m", 9: "bt2020", 10: "bt2020"}
_RANGES = {1: "limited", 2: "full"}
_ANY_TIME_BASE = Fraction(1, 25)  # a filter source must have one; a single picture needs none

# FFmpeg turns a text file into pictures of its characters, and libswscale aborts the whole process on these formats.
_TEXT_CODECS = frozenset({"ansi", "bintext", "idf", "xbin"})
_FATAL_FORMATS = frozenset({"yaf32be", "yaf32le"})


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
    return _list_packets(Path(path)).times


def to_rgb(frame: VideoFrame) -> Rgb:
    """Convert a decoded frame to uint8 [H, W, 3], as stored (not rotated), alpha over black.

    Matrix and range are the frame's own. Where it names none: BT.709 from 720 rows on, BT.601 below; limited range.

    Raises:
        MediaError: a size or a pixel format that cannot be converted.
    """
    _check_size(frame.width, frame.height)
    pixel_format = frame.format
    if pixel_format.name in _FATAL_FORMATS:
        raise MediaError(
            f"pixel format {pixel_format.name} cannot be converted to RGB; encode the video in another one"
        )
    options = f"flags={SCALE_FLAGS}"
    if not (pixel_format.is_rgb or pixel_format.has_palette):
        matrix = _MATRICES.get(frame.colorspace, "bt709" if frame.height >= 720 else "smpte170m")
        value_range = _RANGES.get(frame.color_range, "full" if pixel_format.name.startswith("yuvj") else "limited")
        options += f":in_color_matrix={matrix}:in_range={value_range}"
    has_alpha = pixel_format.has_palette or any(component.is_alpha for component in pixel_format.components)
    graph = Graph()
    graph.threads = 1
    try:
        graph.link_nodes(
            graph.add_buffer(
                width=frame.width,
                height=frame.height,
                format=pixel_format,
                time_base=frame.time_base or _ANY_TIME_BASE,
            ),
            graph.add("scale", options),
            graph.add("format", "rgba" if has_alpha else "rgb24"),
            graph.add("buffersink"),
        ).configure()
        graph.vpush(frame)
        image: Rgb = np.asarray(graph.vpull().to_ndarray(), np.uint8)
    except av.FFmpegError as error:
        raise MediaError(
            f"pixel format {pixel_format.name} cannot be converted to RGB ({error.strerror}); "
            "encode the video in another one"
        ) from error
    return _over_black(image) if has_alpha else image


def _over_black(rgba: Rgb) -> Rgb:
    """round(value * alpha / 255), halves up, in integers."""
    weighted = rgba[..., :3].astype(np.uint16) * rgba[..., 3:]
    return ((weighted + 127) // 255).astype(np.uint8)


def turn_upright(rgb: Rgb, matrix: Sequence[int]) -> tuple[Rgb, bool]:
    """Apply a display matrix (nine integers, FFmpeg's order), rounded to a quarter turn with or without a mirror.

    Returns:
        The image, and whether the matrix was just such a turn. A matrix that is no turn at all leaves the image alone.
    """
    a, b, _, c, d, *_ = (int(value) for value in matrix)  # x' = a x + c y, y' = b x + d y
    if a * d == b * c:
        return rgb, False
    if abs(a) + abs(d) >= abs(b) + abs(c):
        exact, mirror_x, mirror_y = b == c == 0, a < 0, d < 0
    else:
        rgb = rgb.transpose(1, 0, 2)
        exact, mirror_x, mirror_y = a == d == 0, c < 0, b < 0
    return np.ascontiguousarray(rgb[:: -1 if mirror_y else 1, :: -1 if mirror_x else 1]), exact


def pick_frames(
    frames: Iterable[tuple[int, Item]], wanted: Sequence[int], finish: Callable[[Item], Result]
) -> list[tuple[int, Result]]:
    """For each wanted key, the frame with that key; if none comes, the nearest before it; else the first of all.

    Args:
        frames: (key, frame), in any order; left as soon as all wanted ones are out. Of equal keys the first counts.
        wanted: sorted, distinct.
        finish: applied to the frames that are returned, at once where possible, so that few frames are held.

    Returns:
        (the key found, finished frame) per wanted key; empty when no frame came at all.
    """
    exact: dict[int, Result] = {}
    before: dict[int, tuple[int, Item]] = {}  # per wanted key: the last frame between it and the wanted key before it
    first: tuple[int, Item] | None = None
    for key, frame in frames:
        if first is None or key < first[0]:
            first = (key, frame)
        slot = bisect_left(wanted, key)
        if slot == len(wanted) or wanted[slot] in exact:
            continue
        target = wanted[slot]
        if key == target:
            exact[target] = finish(frame)
            before.pop(target, None)
            if len(exact) == len(wanted):
                break
        elif target not in before or before[target][0] < key:
            before[target] = (key, frame)
    if first is None:
        return []
    found: list[tuple[int, Result]] = []
    for target in wanted:
        if target in exact:
            found.append((target, exact[target]))
        elif target in before or not found:
            key, frame = before.get(target, first)
            found.append((key, finish(frame)))
        else:
            found.append(found[-1])
    return found


@dataclass(frozen=True)
class _Timeline:
    """The frames that a file promises. `keys` are presentation timestamps in the stream's own unit, or, in a file
    without them, numbers in order of output; `times` are the clip times that belong to them."""

    keys: tuple[int, ...]
    times: tuple[Fraction, ...]
    last_duration: Fraction | None
    by_count: bool
    warnings: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class _Picture:
    image: Rgb
    damaged: bool
    turned_well: bool


def _read(
    path: Path, spec: FrameSpec, start: float | None, end: float | None, resize: Callable[[Rgb], Rgb]
) -> RgbFrames:
    check_cut(start, end)
    timeline = _list_packets(path)
    plan = uniform_times(timeline.times, timeline.last_duration, spec.count, start, end)
    if not plan.indices:
        length = float(timeline.times[-1] + (timeline.last_duration or 0))
        raise MediaError(
            f"{path} has no frame from {start or 0} s to {'its end' if end is None else f'{end} s'}; "
            f"it is {length:.3f} s long, choose start and end within that"
        )

    def finish(frame: VideoFrame) -> _Picture:
        image, turned_well = to_rgb(frame), True
        matrix: Any = frame.side_data.get("DISPLAYMATRIX")
        if matrix is not None:
            image, turned_well = turn_upright(image, np.frombuffer(bytes(matrix), np.int32).tolist())
        return _Picture(resize(image), frame.is_corrupt, turned_well)

    wanted = sorted({timeline.keys[index] for index in plan.indices})
    with _open_video(path) as (container, stream):
        try:
            found = pick_frames(_decode(container, stream, timeline), wanted, finish)
        except MediaError as error:
            raise MediaError(f"{path}: {error}") from error
    if not found:
        raise MediaError(f"no frame of {path} can be decoded; check the file with a player or encode it again")
    pictures = {key: picture for key, (_, picture) in zip(wanted, found, strict=True)}
    return RgbFrames(
        images=tuple(pictures[timeline.keys[index]].image for index in plan.indices),
        times=np.array([float(time) for time in plan.times]),
        warnings=(*timeline.warnings, *_judge(timeline, wanted, found)),
    )


def _judge(timeline: _Timeline, wanted: Sequence[int], found: Sequence[tuple[int, _Picture]]) -> Iterator[str]:
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


def _list_packets(path: Path) -> _Timeline:
    """The first pass. PyAV always has FFmpeg derive missing times where decoding times allow it (AVFMT_FLAG_GENPTS)."""
    warnings: list[str] = []
    with _open_video(path) as (container, stream):
        packets = [(p.pts, p.duration) for p in _packets(container, stream, warnings) if not p.is_discard]
        unit, rate = stream.time_base, stream.guessed_rate or stream.average_rate
    if not packets:
        raise MediaError(f"{path} holds no video frame; it is empty or breaks off at once, fetch it again")
    timed = {pts: duration for pts, duration in packets if pts is not None}
    if unit is None or any(pts is None for pts, _ in packets):
        rate = rate or Fraction(25)
        times = tuple(number / rate for number in range(len(packets)))
        warnings.append(f"the file gives no times, its frames are counted at {float(rate):.6g} per second")
        return _Timeline(tuple(range(len(packets))), times, 1 / rate, by_count=True, warnings=tuple(warnings))
    keys = tuple(sorted(timed))
    last = timed[keys[-1]]
    times = tuple((key - keys[0]) * unit for key in keys)
    return _Timeline(keys, times, last * unit if last and last > 0 else None, by_count=False, warnings=tuple(warnings))


@contextmanager
def _open_video(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The best video stream of a regular file. Files that the file names (playlists, references) are never opened."""
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "is not a regular file" if path.exists() else "does not exist"
        raise MediaError(f"{path} {what}; give the path of a video file")
    try:
        handle = path.open("rb")
    except OSError as error:
        raise MediaError(f"{path} cannot be opened ({error.strerror}); check its permissions") from error
    with handle:
        if not handle.seek(0, os.SEEK_END):
            raise MediaError(f"{path} is empty; fetch it again")
        handle.seek(0)
        try:
            container = av.open(handle, "r", io_open=_refuse, options={"max_pixels": str(MAX_PIXELS)})
        except (av.FFmpegError, OSError) as error:
            raise MediaError(f"{path} cannot be read as a video ({error.strerror}); give a video file") from error
        with container:
            yield container, _best_stream(path, container)


def _refuse(*_: Any) -> NoReturn:
    raise PermissionError(0, "it refers to other files")


def _best_stream(path: Path, container: InputContainer) -> VideoStream:
    stream = container.streams.best("video")
    if not isinstance(stream, VideoStream) or stream.disposition & Disposition.attached_pic:
        raise MediaError(f"{path} has no video stream; give a file with one")
    codec: Any = stream.codec_context  # None where FFmpeg has no decoder, which PyAV's types do not say
    if codec is None or codec.name in _TEXT_CODECS:
        raise MediaError(f"{path} is not a video that can be decoded; encode it as H.264 or another common format")
    try:
        _check_size(codec.width, codec.height)
    except MediaError as error:
        raise MediaError(f"{path}: {error}") from error
    # One thread: with more, a damaged file gives other pictures, or fewer (measured with H.264). Clips, not frames, are
    # what a caller decodes in parallel.
    stream.thread_type = "NONE"
    codec.thread_count = 1
    codec.options = {"max_pixels": str(MAX_PIXELS)}
    return stream


def _check_size(width: int, height: int) -> None:
    if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        raise MediaError(f"a frame of {width} x {height} pixels is too large; the limit is {MAX_SIDE} on a side")


def _packets(container: InputContainer, stream: VideoStream, warnings: list[str]) -> Iterator[av.Packet[VideoStream]]:
    """The packets that hold data, until the file ends or, which is reported, cannot be read further."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except (av.FFmpegError, OSError) as error:
            warnings.append(f"the file cannot be read to its end ({error.strerror})")
            return
        if packet is None:
            return
        if packet.size:  # an empty one would tell the decoder that the stream is over
            yield packet


def _decode(container: InputContainer, stream: VideoStream, timeline: _Timeline) -> Iterator[tuple[int, VideoFrame]]:
    """Decode from the beginning, in the decoder's order, with the key of each frame. A bad packet is passed over."""
    number = 0
    for packet in chain(_packets(container, stream, []), (None,)):
        try:
            frames = stream.decode(packet)
        except av.FFmpegError:
            continue
        for frame in frames:
            if timeline.by_count:
                yield number, frame
            elif frame.pts is not None:
                yield frame.pts, frame
            elif number < len(timeline.keys):
                yield timeline.keys[number], frame
            number += 1
