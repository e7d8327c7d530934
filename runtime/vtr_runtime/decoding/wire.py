"""What a decoding process and its owner tell each other: a line of JSON, then the bytes of arrays that it announces.

Nothing is unpickled: a process that a hostile file has taken over can give wrong frames and no more."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import MediaError
from ..manifest import FrameSpec
from ..video import Frames

MAX_LINE = 1 << 26  # windows of a day, one a second, take 2 MB


def send(stream: IO[bytes], message: dict[str, Any], arrays: Sequence[NDArray[Any]] = ()) -> None:
    stream.write(json.dumps(message).encode() + b"\n")
    for array in arrays:
        stream.write(np.ascontiguousarray(array).data)
    stream.flush()


def receive_line(stream: IO[bytes]) -> dict[str, Any] | None:
    """The next message; None where the other side is gone or says what is no message."""
    line = stream.readline(MAX_LINE)
    if not line.endswith(b"\n"):
        return None
    try:
        message = json.loads(line)
    except ValueError:
        return None
    return message if isinstance(message, dict) else None


def send_frames(stream: IO[bytes], found: Sequence[Frames | MediaError]) -> None:
    parts: list[dict[str, Any]] = []
    arrays: list[NDArray[Any]] = []
    for part in found:
        if isinstance(part, MediaError):
            parts.append({"error": str(part)})
        else:
            parts.append({"warnings": part.warnings})
            arrays += [part.pixels, part.mask, part.times]
    send(stream, {"parts": parts}, arrays)


def receive_frames(stream: IO[bytes], message: dict[str, Any], spec: FrameSpec) -> list[Frames | MediaError] | None:
    """What `send_frames` sent behind `message`; shapes come from `spec`, not from the other side."""
    found: list[Frames | MediaError] = []
    for part in message["parts"]:
        if "error" in part:
            found.append(MediaError(str(part["error"])))
            continue
        pixels = _array(stream, (spec.count, spec.size, spec.size, 3), np.uint8)
        mask = _array(stream, (spec.count,), np.bool_)
        times = _array(stream, (spec.count,), np.float64)
        if pixels is None or mask is None or times is None:
            return None
        found.append(Frames(pixels, mask, times, tuple(map(str, part["warnings"]))))
    return found


def _array(stream: IO[bytes], shape: tuple[int, ...], kind: type[Any]) -> NDArray[Any] | None:
    array = np.empty(shape, kind)
    view = array.data.cast("B")
    filled = 0
    while filled < len(view):
        count = stream.readinto(view[filled:])  # type: ignore[attr-defined]  # every binary buffered reader has it
        if not count:
            return None
        filled += count
    return array
