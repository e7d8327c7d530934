"""The first pass over a file: its packets, none of them decoded."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path

import av
from av.video.stream import VideoStream

from ..errors import MediaError
from .access import PLAIN, inspector
from .container import open_video, packets

# 38 hours of 60 frames a second; the list of so many takes about 2 GB.
MAX_PACKETS = 1 << 23


@dataclass(frozen=True)
class Entry:
    """A place where decoding may begin: the packet's number in the file, its time and where it lies."""

    number: int
    key: int
    position: int | None


@dataclass(frozen=True)
class Timeline:
    """The frames that a file promises. `keys` are presentation timestamps in the stream's own unit, or, in a file
    without them, numbers in order of output; `times` are the clip times that belong to them.

    `order` has the key of each packet as they lie in the file, `entries` are the packets to begin at, and `droppable`
    has a 1 for each packet that no other picture needs; without entries a file is decoded from its beginning."""

    keys: tuple[int, ...]
    times: tuple[Fraction, ...]
    last_duration: Fraction | None
    by_count: bool
    warnings: tuple[str, ...]
    order: tuple[int, ...] = ()
    entries: tuple[Entry, ...] = ()
    droppable: bytes = b""

    @cached_property
    def places(self) -> dict[int, int]:
        """The number of the first packet of each key."""
        found: dict[int, int] = {}
        for number, key in enumerate(self.order):
            found.setdefault(key, number)
        return found


class _AccessTable:
    """Gathers what each packet means; what one of them makes uncertain is forgotten at the end."""

    def __init__(self, codec: object) -> None:
        self._inspect = inspector(codec)
        self._droppable = bytearray()
        self._entries: list[Entry] = []
        self._complete: set[int] = set()
        self._parameters = False
        self._uncertain = False

    def add(self, packet: av.Packet[VideoStream]) -> None:
        found = self._inspect(memoryview(packet)) if self._inspect else PLAIN
        number = len(self._droppable)
        key = packet.pts if found.start and packet.is_keyframe else None
        if key is not None:
            self._entries.append(Entry(number, key, packet.pos))
            if found.complete:
                self._complete.add(number)
        # Parameters may come with the file's head, or else with every entry, and nowhere between.
        self._parameters |= found.parameters
        loose = found.parameters and key is None
        self._uncertain |= loose or found.layered or packet.has_sidedata("new_extradata")
        self._droppable.append(found.droppable)

    def result(self) -> tuple[tuple[Entry, ...], bytes]:
        if self._uncertain:
            return (), b""
        entries = [entry for entry in self._entries if entry.number in self._complete or not self._parameters]
        twice = {key for key, count in Counter(entry.key for entry in entries).items() if count > 1}
        return tuple(entry for entry in entries if entry.key not in twice), bytes(self._droppable)


def list_packets(path: Path) -> Timeline:
    """The first pass. PyAV always has FFmpeg derive missing times where decoding times allow it (AVFMT_FLAG_GENPTS)."""
    warnings: list[str] = []
    order: list[int | None] = []
    listed: list[tuple[int | None, int | None]] = []
    with open_video(path) as (container, stream):
        table = _AccessTable(stream.codec_context)
        for packet in packets(container, stream, warnings):
            if len(order) == MAX_PACKETS:
                raise MediaError(f"{path} holds more than {MAX_PACKETS} frames, the limit; cut it into several files")
            order.append(packet.pts)
            table.add(packet)
            if not packet.is_discard:
                listed.append((packet.pts, packet.duration))
        unit, rate = stream.time_base, stream.guessed_rate or stream.average_rate
    if not listed:
        raise MediaError(f"{path} holds no video frame; it is empty or breaks off at once, fetch it again")
    timed = {pts: duration for pts, duration in listed if pts is not None}
    if unit is None or any(pts is None for pts, _ in listed):
        rate = rate or Fraction(25)
        times = tuple(number / rate for number in range(len(listed)))
        warnings.append(f"the file gives no times, its frames are counted at {float(rate):.6g} per second")
        return Timeline(tuple(range(len(listed))), times, 1 / rate, by_count=True, warnings=tuple(warnings))
    keys = tuple(sorted(timed))
    last = timed[keys[-1]]
    times = tuple((key - keys[0]) * unit for key in keys)
    entries, droppable = table.result()
    known = tuple(key for key in order if key is not None)
    if len(known) < len(order):
        entries = ()
    return Timeline(
        keys,
        times,
        last * unit if last and last > 0 else None,
        by_count=False,
        warnings=tuple(warnings),
        order=known,
        entries=entries,
        droppable=droppable,
    )
