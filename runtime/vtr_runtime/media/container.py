"""Opening a video file, safely: its best stream, its packets, the limits."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import av
from av.codec.hwaccel import HWAccel
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from ..errors import MediaError

MAX_SIDE = 16384
MAX_PIXELS = 2**28
NOT_ACCELERATED = "has a format that the hardware does not decode; decode it on the CPU"

# FFmpeg turns a text file into pictures of its characters.
_TEXT_CODECS = frozenset({"ansi", "bintext", "idf", "xbin"})


@contextmanager
def open_video(path: Path, acceleration: HWAccel | None = None) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The best video stream of a regular file. Files that the file names (playlists, references) are never opened.
    With `acceleration` MediaError also for a stream that it does not take."""
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
            options = {"max_pixels": str(MAX_PIXELS)}
            container = av.open(handle, "r", io_open=_refuse, options=options, hwaccel=acceleration)
        except (av.FFmpegError, OSError) as error:
            raise MediaError(f"{path} cannot be read as a video ({error.strerror}); give a video file") from error
        except RuntimeError as error:  # raised with an acceleration alone, where no stream can have it
            raise MediaError(f"{path} {NOT_ACCELERATED}") from error
        with container:
            stream = _best_stream(path, container)
            if acceleration is not None and not stream.codec_context.is_hwaccel:
                raise MediaError(f"{path} {NOT_ACCELERATED}")
            yield container, stream


def packets(container: InputContainer, stream: VideoStream, warnings: list[str]) -> Iterator[av.Packet[VideoStream]]:
    """The packets that hold data, until the file ends or, which is reported, cannot be read further."""
    demuxed = container.demux(stream)
    while True:
        try:
            packet = next(demuxed, None)
        except (av.FFmpegError, OSError) as error:
            warnings.append(f"the file cannot be read to its end ({error.strerror})")
            return
        if packet is None:
            return
        if packet.size:  # an empty one would tell the decoder that the stream is over
            yield packet


def check_size(width: int, height: int) -> None:
    """MediaError for a frame beyond the limits."""
    if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        raise MediaError(f"a frame of {width} x {height} pixels is too large; the limit is {MAX_SIDE} on a side")


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
        check_size(codec.width, codec.height)
    except MediaError as error:
        raise MediaError(f"{path}: {error}") from error
    # One thread: with more, a damaged file gives other pictures, or fewer (measured with H.264). Clips, not frames, are
    # what a caller decodes in parallel.
    stream.thread_type = "NONE"
    codec.thread_count = 1
    codec.options = {"max_pixels": str(MAX_PIXELS)}
    return stream
