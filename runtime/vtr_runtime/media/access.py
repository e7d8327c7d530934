"""What a packet means to the others, told from its bytes: may decoding begin at it, does any other picture need it.

Read from the bitstream itself, since containers mark more as key pictures than may be begun with. What is not known
here for certain is decoded from the beginning of the file, as any other codec is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Access:
    """`start`: from this picture's time on, all pictures come out as if the file had been decoded from its beginning.
    `droppable`: no other picture is predicted from this one. `parameters`: it sets what later packets are read by;
    `complete`: all of it. `layered`: the stream has layers, in which `droppable` does not hold."""

    start: bool = False
    droppable: bool = False
    parameters: bool = False
    complete: bool = False
    layered: bool = False


PLAIN = Access()
Inspect = Callable[[memoryview], Access]


def inspector(codec: Any) -> Inspect | None:
    """How to look at the packets of a codec context (PyAV's), or None for a codec that is decoded whole."""
    name, pixels, extra = codec.name, codec.pix_fmt or "", bytes(codec.extradata or b"")
    if name == "h264":
        # Decoders mend the 4:4:4 of old x264 versions, which only the file's first packet names.
        if "444" in pixels or pixels.startswith("gbr"):
            return None
        length = (extra[4] & 3) + 1 if extra[:1] == b"\1" and len(extra) > 4 else 0
        return lambda data: _h264(data, length)
    if name == "hevc":
        length = (extra[21] & 3) + 1 if extra[:1] == b"\1" and len(extra) > 21 else 0
        return lambda data: _hevc(data, length)
    return {"vp8": _vp8, "vp9": _vp9, "libdav1d": _av1, "av1": _av1, "prores": _intra, "dnxhd": _intra}.get(name)


def units(data: memoryview, length: int) -> Iterator[memoryview]:
    """The NAL units of a packet: behind sizes of `length` bytes (ISO/IEC 14496-15), or, where that is 0, behind start
    codes (Annex B). A size that the packet does not hold ends them."""
    if length:
        at = 0
        while at + length < len(data):
            size = int.from_bytes(data[at : at + length], "big")
            at += length
            if not 0 < size <= len(data) - at:
                return
            yield data[at : at + size]
            at += size
        return
    whole = bytes(data)
    at = whole.find(b"\0\0\1")
    while at >= 0:
        end = whole.find(b"\0\0\1", at + 3)
        yield data[at + 3 : end if end >= 0 else len(data)]
        at = end


def _h264(data: memoryview, length: int) -> Access:
    """ITU-T H.264, 7.4.1: type 5 is an instantaneous refresh, 7 and 8 are parameter sets, nal_ref_idc 0 is no
    reference."""
    kinds, referenced = set(), False
    for unit in units(data, length):
        kind = unit[0] & 31 if len(unit) else 0
        kinds.add(kind)
        referenced |= kind in range(1, 6) and bool(unit[0] >> 5 & 3)
    pictures = kinds & {1, 2, 3, 4, 5}
    return Access(
        start=pictures == {5},
        droppable=pictures == {1} and not referenced,
        parameters=bool(kinds & {7, 8, 13, 15}),
        complete={7, 8} <= kinds,
        layered=bool(kinds & {14, 20, 21}),
    )


def _hevc(data: memoryview, length: int) -> Access:
    """ITU-T H.265, 7.4.2.2: types 16 to 21 are random access points, whose leading pictures have earlier times; even
    ones up to 14 are no references within their temporal layer; 32 to 34 are parameter sets."""
    kinds, layered = set(), False
    for unit in units(data, length):
        if len(unit) < 2:
            continue
        kind = unit[0] >> 1 & 63
        kinds.add(kind)
        layer, temporal = (unit[0] & 1) << 5 | unit[1] >> 3, (unit[1] & 7) - 1
        layered |= layer > 0 or (kind < 32 and temporal > 0)
    pictures = {kind for kind in kinds if kind < 32}
    return Access(
        start=bool(pictures) and pictures <= set(range(16, 22)),
        droppable=bool(pictures) and pictures <= set(range(0, 15, 2)),
        parameters=bool(kinds & {32, 33, 34}),
        complete={32, 33, 34} <= kinds,
        layered=layered,
    )


def _vp8(data: memoryview) -> Access:
    """RFC 6386, 9.1: the first bit is 0 for a key frame."""
    return Access(start=len(data) > 0 and not data[0] & 1)


def _vp9(data: memoryview) -> Access:
    """VP9 bitstream specification, 6.2: marker, profile, show_existing_frame, frame_type, show_frame."""
    if not len(data) or data[0] >> 6 != 2:
        return PLAIN
    shift = 1 if data[0] >> 4 & 3 == 3 else 0  # profile 3 has a reserved bit
    existing, not_key, shown = (data[0] >> bit - shift & 1 for bit in (3, 2, 1))
    return Access(start=not existing and not not_key and bool(shown))


def _av1(data: memoryview) -> Access:
    """AV1 bitstream specification, 5.3 and 5.9.2: a sequence header, then a key frame that is shown at once."""
    sequence, at = False, 0
    while at < len(data):
        kind, extended, sized = data[at] >> 3 & 15, data[at] >> 2 & 1, data[at] >> 1 & 1
        at += 1 + extended
        size = len(data) - at
        if sized:
            size, shift = 0, 0
            while at < len(data):
                byte = data[at]
                size |= (byte & 127) << shift
                at, shift = at + 1, shift + 7
                if not byte & 128:
                    break
        sequence |= kind == 1
        if kind in (3, 6):  # frame header, frame: show_existing_frame, frame_type, show_frame
            first = data[at] if at < len(data) else 255
            return Access(start=sequence and first >> 7 == 0 and first >> 5 & 3 == 0 and bool(first >> 4 & 1))
        at += size
    return PLAIN


def _intra(_: memoryview) -> Access:
    return Access(start=True, droppable=True)
