"""What Python makes of video files: expectations for video_test.cc.

    python runtime/cpp/tests/make_video_data.py FOLDER [CLIPS...]

writes FOLDER/frames/videos.json for the committed clips, for those in the folders CLIPS, and for clips made here, which
lie in FOLDER/frames/clips: streams with what makes selective decoding hard, files of odd kinds, and damaged ones."""

from __future__ import annotations

import json
import random
import sys
import zlib
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vtr_runtime.errors import MediaError
from vtr_runtime.golden import frame_digests
from vtr_runtime.manifest import FrameSpec
from vtr_runtime.media.timeline import list_packets
from vtr_runtime.video import VideoFile, packet_times, read_frames, read_rgb

ROOT = Path(__file__).parents[3]
PLACES = (ROOT / "tests" / "data" / "videos", ROOT / "vtr_export" / "media")
NO_CLIPS = ("", ".md", ".csv", ".xz", ".txt")

# A few options each: open groups, fields, several slices, parameters in the stream, start codes, layers of time.
STREAMS = {
    "closed.mp4": ("libx264", {"g": "12", "x264-params": "open-gop=0:b-pyramid=normal:bframes=3"}),
    "open.mp4": ("libx264", {"g": "12", "x264-params": "open-gop=1:bframes=3"}),
    "slices.mkv": ("libx264", {"g": "12", "x264-params": "slices=4:bframes=2"}),
    "fields.mp4": ("libx264", {"g": "12", "flags": "+ildct+ilme", "x264-params": "tff=1:bframes=2"}),
    "codes.ts": ("libx264", {"g": "12", "x264-params": "bframes=2"}),
    "headers.mkv": ("libx264", {"g": "12", "x264-params": "repeat-headers=1:bframes=2"}),
    "refresh.mp4": ("libx264", {"g": "30", "x264-params": "intra-refresh=1:bframes=0"}),
    "raw.h264": ("libx264", {"g": "12", "x264-params": "bframes=2"}),
    "hevc.mp4": ("libx265", {"x265-params": "keyint=12:min-keyint=12:open-gop=1:bframes=4:log-level=none"}),
    "vp8.webm": ("libvpx", {"g": "12", "deadline": "realtime"}),
    "vp9.webm": ("libvpx-vp9", {"g": "12", "deadline": "realtime", "cpu-used": "8"}),
    "av1.mp4": ("libsvtav1", {"g": "12", "preset": "10"}),
    "prores.mov": ("prores_ks", {}),
    "bframes.avi": ("mpeg4", {"g": "12", "bf": "2"}),
    "full.mp4": ("mjpeg", {}),
    "ffv1.mkv": ("ffv1", {}),
}
PIXELS = {"prores.mov": "yuv422p10le", "full.mp4": "yuvj420p", "ffv1.mkv": "yuva444p"}


def moving(count: int, width: int = 96, height: int = 64) -> list[NDArray[np.uint8]]:
    """Noise that moves, so that pictures predict each other and no two are alike."""
    still = np.random.default_rng(0).integers(0, 256, (height, width + 3 * count, 3), dtype=np.uint8)
    return [np.ascontiguousarray(still[:, 3 * n : 3 * n + width]) for n in range(count)]


def encode(path: Path, codec: str, options: dict[str, str], pixels: str, count: int = 60) -> Path:
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=30, options=options)
        stream.width, stream.height, stream.pix_fmt = 96, 64, pixels
        stream.bit_rate = 200_000
        for picture in moving(count):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def png(image: NDArray[np.uint8]) -> bytes:
    height, width, depth = image.shape
    rows = b"".join(b"\0" + row.tobytes() for row in image)
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 2 if depth == 3 else 6, 0, 0, 0])
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big") for kind, data in chunks
    )


def lossless(
    path: Path,
    images: Sequence[NDArray[np.uint8]],
    *,
    pts: Sequence[int] | None = None,
    broken: Sequence[int] = (),
    turn: int = 0,
    mirror: bool = False,
    options: dict[str, str] | None = None,
) -> Path:
    """10 frames a second where `pts` (1/1000 s) says nothing; `broken` packets hold rubbish."""
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream("png", rate=10)
        stream.width, stream.height, stream.pix_fmt = images[0].shape[1], images[0].shape[0], "rgb24"
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        if turn or mirror:
            stream.set_display_rotation(turn, hflip=mirror)
        for number, image in enumerate(images):
            packet = av.Packet(b"rubbish" * 20 if number in broken else png(image))
            packet.stream, packet.time_base, packet.is_keyframe = stream, Fraction(1, 1000), True
            packet.pts = packet.dts = pts[number] if pts else 100 * number
            if number == len(images) - 1:
                packet.duration = 100
            container.mux(packet)
    return path


def copy(source: Path, target: Path, options: dict[str, str]) -> None:
    """The same coded pictures at times that vary, in a file of another kind."""
    chosen = random.Random(0)
    with av.open(str(source)) as container, av.open(str(target), "w", options=options) as out:
        video: Any = container.streams.video[0]
        stream: Any = out.add_stream_from_template(video)
        late = 0
        for packet in container.demux(video):
            if packet.dts is None:
                continue
            late += chosen.randrange(200)
            packet.pts += late
            packet.dts += late
            packet.stream = stream
            out.mux(packet)


def lengthen(source: Path, target: Path, turns: int) -> None:
    """The coded pictures of a file behind each other, at later and later times: long enough for jumps."""
    with av.open(str(target), "w") as out:
        stream: Any = None
        for turn in range(turns):
            with av.open(str(source)) as container:
                video: Any = container.streams.video[0]
                stream = stream or out.add_stream_from_template(video)
                length = round(Fraction(65, 30) / video.time_base)
                for packet in container.demux(video):
                    if packet.dts is None:
                        continue
                    packet.pts += turn * length
                    packet.dts += turn * length
                    packet.stream = stream
                    out.mux(packet)


def odd_files(folder: Path) -> None:
    images = moving(6, 47, 33)
    for turn in (90, 180, 270, 30, 60):
        lossless(folder / f"turn{turn}.mov", images[:1], turn=turn)
    lossless(folder / "mirror.mov", images[:1], mirror=True)
    lossless(folder / "mirror90.mov", images[:1], turn=90, mirror=True)
    lossless(folder / "uneven.mov", images, pts=[5000, 5100, 5200, 9000, 9100, 9150])
    lossless(folder / "broken.mov", images, broken=[0, 3, 4])
    lossless(folder / "all-broken.mov", images, broken=range(6))
    lossless(folder / "sizes.mov", [images[0], moving(1, 20, 40)[0], moving(1, 9, 7)[0]])
    lossless(folder / "too-wide.mov", [images[0], np.zeros((1, 16385, 3), np.uint8)])
    lossless(folder / "a:b%03d.mov", images[:1])
    lossless(folder / "narrow.mov", [np.zeros((1, 9000, 3), np.uint8)])
    clear = np.random.default_rng(0).integers(0, 256, (33, 47, 4), np.uint8)
    (folder / "clear.png").write_bytes(png(clear))
    layers = [Image.fromarray(np.roll(clear, 9 * n, 1)).convert("P") for n in range(3)]
    layers[0].save(folder / "clear.gif", save_all=True, append_images=layers[1:], duration=100, disposal=2)
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "text.mp4").write_bytes(b"no video\n" * 99)
    (folder / "tty.txt").write_bytes(b"no video\n" * 99)
    (folder / "list.m3u8").write_text(
        f"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{folder / 'uneven.mov'}\n#EXT-X-ENDLIST"
    )
    (folder / "no-decoder.mov").write_bytes((folder / "turn90.mov").read_bytes().replace(b"png ", b"zzzz"))
    (folder / "folder.mp4").mkdir(exist_ok=True)
    for width, height in ((16385, 2), (65535, 65535)):
        header = b"GIF89a" + width.to_bytes(2, "little") + height.to_bytes(2, "little") + bytes([0x80, 0, 0]) + bytes(6)
        image = b"," + bytes(4) + b"\x01\0\x01\0" + b"\0" + b"\x02\x02\x44\x01\0" + b";"
        (folder / f"giant{width}.gif").write_bytes(header + image)
    fragments = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
    lossless(folder / "fragments.mov", images, pts=[0, 300, 350, 900, 1000, 1777], options=fragments)
    copy(folder / "closed.mp4", folder / "fragments.mp4", fragments)
    copy(folder / "open.mp4", folder / "hybrid.mp4", {"movflags": "frag_keyframe"})
    copy(folder / "closed.mp4", folder / "late.mp4", {"use_editlist": "0"})
    for name in ("closed.mp4", "vp9.webm", "hevc.mp4"):
        whole = (folder / name).read_bytes()
        (folder / f"half-{name}").write_bytes(whole[: len(whole) // 2])


def damaged_files(folder: Path, sources: Sequence[Path]) -> None:
    """Bits turned and bytes cut out, each file its own way."""
    folder.mkdir(exist_ok=True)
    chosen = random.Random(1)
    for source in sources:
        sound = source.read_bytes()
        for trial in range(12):
            data = bytearray(sound)
            for _ in range(1 + trial % 4):
                place = chosen.randrange(len(data))
                if trial % 3 == 2:
                    del data[place : place + chosen.choice((1, 100, 5000))]
                else:
                    data[place] ^= 1 << chosen.randrange(8)
            (folder / f"{trial:02}-{source.name}").write_bytes(data)


def cases(path: Path) -> Iterator[dict[str, Any]]:
    """The file seen in several ways."""
    try:
        file = VideoFile(path)
    except MediaError as error:
        yield {"count": 4, "size": 32, "error": str(error)}
        return
    length = file.length
    windows: list[tuple[float | None, float | None]] = [
        (None, None), (None, length / 2), (0.3 * length, 0.7 * length), (length + 1, None),
    ]  # fmt: skip
    for count, size, (start, end) in ((12, 224, windows[0]), (4, 97, windows[0]), *((5, 48, cut) for cut in windows)):
        if end is not None and end <= (start or 0):
            continue
        case: dict[str, Any] = {"count": count, "size": size, "start": start, "end": end}
        try:
            spec = FrameSpec(count=count, size=size)
            frames = read_frames(path, spec, start=start, end=end)
            rgb = read_rgb(path, spec, start=start, end=end)
        except MediaError as error:
            yield {**case, "error": str(error)}
            continue
        yield {
            **case,
            "times": [float(time).hex() for time in rgb.times],
            "rgb": [bytes(row).hex() for row in frame_digests(rgb.images)],
            "pixels": [bytes(row).hex() for row in frame_digests(frames.pixels)],
            "warnings": list(frames.warnings),
        }


def expectations(path: Path, kind: str) -> dict[str, Any]:
    found: dict[str, Any] = {"path": str(path), "kind": kind, "cases": list(cases(path))}
    try:
        found["container"] = [f"{time.numerator}/{time.denominator}" for time in packet_times(path)]
        timeline = list_packets(path)
        found["entries"] = [[entry.number, entry.key] for entry in timeline.entries]
        found["droppable"] = "".join(str(byte) for byte in timeline.droppable) if timeline.entries else ""
    except MediaError:
        pass
    return found


def main(folder: Path, places: Sequence[Path]) -> None:
    made = folder / "frames" / "clips"
    made.mkdir(parents=True, exist_ok=True)
    streams = [encode(made / name, *STREAMS[name], PIXELS.get(name, "yuv420p")) for name in STREAMS]
    for name in ("closed.mp4", "codes.ts"):
        lengthen(made / name, made / f"long-{name}", 12)
    lengthen(made / "closed.mp4", made / "long.mkv", 12)
    odd_files(made)
    damaged_files(folder / "frames" / "damaged", streams)
    found = []
    for kind, paths in (
        ("committed", [path for place in PLACES for path in sorted(place.iterdir())]),
        ("given", [path for place in places for path in sorted(place.rglob("*")) if path.is_file()]),
        ("made", sorted(made.iterdir())),
        ("damaged", sorted((folder / "frames" / "damaged").iterdir())),
    ):
        found += [expectations(path.resolve(), kind) for path in paths if path.suffix not in NO_CLIPS]
    found.append(expectations(made / "tty.txt", "made"))
    found.append(expectations(made / "absent.mp4", "made"))
    (folder / "frames" / "videos.json").write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(place) for place in sys.argv[2:]])
