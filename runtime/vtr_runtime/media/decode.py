"""The second pass: the wanted pictures, decoding as little as gives them exactly.

`decode_selected` begins at the last entry before each wanted picture and passes over pictures that no other needs; it
gives up at the first sign of damage. `decode_all` begins at the beginning, always works, and is the reference: what
both give is the same, picture for picture (tests/runtime/test_selective.py)."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TypeVar

import av
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from .container import packets
from .timeline import Entry, Timeline

Item = TypeVar("Item")
Result = TypeVar("Result")

# Selective decoding has to save at least this share of the packets to be worth a second try when it fails.
LEAST_SAVING = 0.05
# A gap of so many bytes is jumped over; smaller ones are read.
SEEK_BYTES = 1 << 20
# Demuxers that land where they are told, and give the same packets as when they read through.
SEEKABLE = frozenset({"mov", "mp4", "matroska", "webm"})
# Stands for the number of a packet where a stretch ends.
END = -1


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


def decode_all(container: InputContainer, stream: VideoStream, timeline: Timeline) -> Iterator[tuple[int, VideoFrame]]:
    """Decode from the beginning, in the decoder's order, with the key of each frame. A bad packet is passed over."""
    number = 0
    for packet in chain(packets(container, stream, []), (None,)):
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


@dataclass(frozen=True)
class Stretch:
    """Packets `entry.number` to `last` of a file, decoded in one go."""

    entry: Entry
    last: int


@dataclass(frozen=True)
class Selection:
    """What is decoded for some wanted pictures. `passed_over` numbers the packets in between that are left out."""

    stretches: tuple[Stretch, ...]
    passed_over: frozenset[int]
    decoded: int  # packets


def select(timeline: Timeline, wanted: Sequence[int], *, least_saving: float | None = LEAST_SAVING) -> Selection | None:
    """Choose what to decode for the sorted keys `wanted`; None where that is not known to be safe, or saves less than
    the share `least_saving` of the packets (None: however little it saves).

    A picture is safe behind an entry of an earlier or the same time: what lies behind the entry in the file, but is
    shown before it, may be predicted from what lies before the entry."""
    if not timeline.entries or timeline.by_count:
        return None
    place = timeline.places
    if len(place) < len(timeline.order):
        return None  # two packets of one time: which of them is meant, only the whole decides
    # Neighbours of a wanted packet stay: two fields of one picture may come in two packets.
    kept = {place[key] + step for key in wanted for step in (-1, 0, 1)}
    entry_numbers = [entry.number for entry in timeline.entries]
    found: list[Stretch] = []
    for number, key in sorted((place[key], key) for key in wanted):
        before = range(bisect_right(entry_numbers, number) - 1, -1, -1)
        entry = next((timeline.entries[at] for at in before if timeline.entries[at].key <= key), None)
        if entry is None:
            return None
        last = min(number + 1, len(timeline.order) - 1)
        if found and entry.number <= found[-1].last:
            entry = found.pop().entry
        found.append(Stretch(entry, last))
    passed_over = frozenset(
        number
        for stretch in found
        for number in range(stretch.entry.number, stretch.last + 1)
        if timeline.droppable[number] and number not in kept
    )
    decoded = sum(stretch.last + 1 - stretch.entry.number for stretch in found) - len(passed_over)
    if least_saving is not None and decoded > (1 - least_saving) * (max(place[key] for key in wanted) + 1):
        return None
    return Selection(tuple(found), passed_over, decoded)


def decode_selected(
    container: InputContainer,
    stream: VideoStream,
    timeline: Timeline,
    selection: Selection,
    wanted: Sequence[int],
    finish: Callable[[VideoFrame], Result],
) -> dict[int, Result] | None:
    """The wanted pictures by key, finished as they come; None at the first sign that what was decoded is damaged: what
    a decoder makes of damage depends on what it saw before."""
    found: dict[int, Result] = {}
    missing = set(wanted)
    reader = _Reader(container, stream, timeline)
    for stretch in selection.stretches:
        stream.codec_context.flush_buffers()
        for number, packet in reader.read(stretch):
            if number in selection.passed_over:
                continue
            try:
                frames = stream.decode(packet)
            except av.FFmpegError:
                return None
            for frame in frames:
                if frame.pts is None or frame.is_corrupt:
                    return None
                if frame.pts in missing:
                    found[frame.pts] = finish(frame)
                    missing.discard(frame.pts)
    return None if missing else found


class _Reader:
    """The packets of a file with their numbers, forwards: by reading through, or by a jump over what is far away.
    Where a jump lands is checked against the first pass; a demuxer that goes astray gives no packet any more."""

    def __init__(self, container: InputContainer, stream: VideoStream, timeline: Timeline) -> None:
        self._container, self._stream = container, stream
        self._by_key = {entry.key: entry for entry in timeline.entries}
        self._seekable = bool(SEEKABLE & set(container.format.name.split(",")))
        self._packets: Iterator[av.Packet[VideoStream]] = packets(container, stream, [])
        self._next = 0
        self._position = 0

    def read(self, stretch: Stretch) -> Iterator[tuple[int, av.Packet[VideoStream] | None]]:
        """The packets of a stretch, and a None that has the decoder give out what it holds, damage included."""
        for packet in chain(self._jump(stretch.entry), self._packets):
            number, self._next = self._next, self._next + 1
            self._position = packet.pos or self._position
            if number >= stretch.entry.number:
                yield number, packet
            if number == stretch.last:
                break
        yield END, None

    def _jump(self, entry: Entry) -> tuple[av.Packet[VideoStream], ...]:
        """Seek to the entry or before it, where that is worth it; gives the packet that was read to know the place."""
        if not self._seekable or entry.position is None or entry.number <= self._next:
            return ()
        if entry.position - self._position < SEEK_BYTES:
            return ()
        self._container.seek(entry.key, stream=self._stream, backward=True)
        self._packets = packets(self._container, self._stream, [])
        packet = next(self._packets, None)
        landed = self._by_key.get(packet.pts) if packet is not None and packet.pts is not None else None
        # Matroska gives no decoding times right behind a jump; time and place in the file name a packet.
        if packet and landed and packet.pos == landed.position and landed.number <= entry.number:
            self._next = landed.number
            return (packet,)
        self._packets = iter(())  # it landed where it should not, and nothing is found
        return ()
