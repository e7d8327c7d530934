"""From pictures to mp4 files. The members of a group hold the same coded pictures in another order.

Every picture is held for two video frames and coded as a closed group of two (an IDR frame and a repeat), so a decoder
starts afresh at each picture. The pictures are coded once; a member is a reordering of the coded packets. So whatever
reads the clips gets, from all members of a group, exactly the same frames, and only their order tells them apart."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
from av.packet import Packet
from av.video.stream import VideoStream
from numpy.typing import NDArray

from .captions import MEMBERS
from .pictures import PICTURES

RATE = 12  # video frames per second
HOLD = 2  # video frames per picture

_THERE = list(range(PICTURES))
_THERE_BACK = _THERE[::2] + _THERE[1::2][::-1]  # even places on the way there, odd ones on the way back
ORDERS = {
    "there": _THERE,
    "back": _THERE[::-1],
    "there-back": _THERE_BACK,
    "back-there": [PICTURES - 1 - place for place in _THERE_BACK],
}

# Constant quantiser and nothing that looks at other pictures: the same bytes on every run.
X264 = {
    "preset": "veryfast",
    "x264-params": f"qp=26:keyint={HOLD}:min-keyint=1:scenecut=0:bframes=0:ref=1:aq-mode=0:mbtree=0:rc-lookahead=0:"
    "sync-lookahead=0:threads=1:lookahead-threads=1:open-gop=0",
}


def write_members(pictures: NDArray[np.uint8], paths: Sequence[Path], members: Sequence[int]) -> None:
    """Write one mp4 for each of `members` (indices into MEMBERS) from the pictures [12, H, W, 3]."""
    with av.open(io.BytesIO(_encode(pictures)), "r", format="mp4") as coded:
        stream = coded.streams.video[0]
        packets = [packet for packet in coded.demux(stream) if packet.size]
        payloads = [(bytes(packet), packet.is_keyframe) for packet in packets]
        for path, member in zip(paths, members, strict=True):
            _write(path, stream, payloads, ORDERS[MEMBERS[member]])


def _encode(pictures: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    height, width = pictures.shape[1:3]
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=RATE, options=X264)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for picture in pictures.repeat(HOLD, axis=0):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return file.getvalue()


def _write(path: Path, template: VideoStream, payloads: list[tuple[bytes, bool]], order: list[int]) -> None:
    with av.open(str(path), "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream_from_template(template)
        assert template.time_base is not None  # mp4 has one
        step = 1 / (RATE * template.time_base)  # time units of a frame
        frames = [place * HOLD + repeat for place in order for repeat in range(HOLD)]
        for number, frame in enumerate(frames):
            data, is_key = payloads[frame]
            packet = Packet(data)
            packet.stream, packet.time_base, packet.is_keyframe = stream, template.time_base, is_key
            packet.pts = packet.dts = int(number * step)
            packet.duration = int(step)
            container.mux(packet)
