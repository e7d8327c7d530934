"""Decoding on a GPU: what its pixel formats become, who decodes what it does not take, and, on a GPU, the pixels."""

from __future__ import annotations

import re
import threading
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.frame import VideoFrame
from click.testing import CliRunner
from numpy.typing import NDArray

from vtr_runtime.cli import main
from vtr_runtime.decoding import DecoderHere
from vtr_runtime.engines.device import read_device
from vtr_runtime.errors import MediaError, UnavailableError
from vtr_runtime.manifest import FrameSpec
from vtr_runtime.media import nvdec
from vtr_runtime.media.colour import RgbConverter
from vtr_runtime.media.container import open_video
from vtr_runtime.media.nvdec import Nvdec
from vtr_runtime.video import read_frames

ROOT = Path(__file__).parents[2]
PLACES = (ROOT / "tests/data/videos", ROOT.parent / "shared/data/videos")
VIDEOS = (".mp4", ".mov", ".webm", ".mkv", ".avi", ".3gp")
CLIPS = {path.name: path for place in PLACES for path in sorted(place.rglob("*")) if path.suffix in VIDEOS}
H264 = ROOT / "tests/data/videos/decord_video_180.mov"
SPEC = FrameSpec(count=12, size=64)
WITHOUT_GPU = pytest.mark.skipif(read_device() is not None, reason="there is an NVIDIA GPU")


def as_hardware(planes: NDArray[np.uint16], width: int, height: int, *, deep: bool) -> VideoFrame:
    """4:2:0 planes, one behind the other, as NVDEC gives them: luma, then chroma in pairs; ten bits in the upper ones
    of sixteen."""
    luma, chroma = planes[: width * height].reshape(height, width), planes[width * height :].reshape(2, -1)
    rows = np.vstack([luma, chroma.T.reshape(height // 2, width)])
    frame = VideoFrame(width, height, "p010le" if deep else "nv12")
    values = (rows << 6).astype("<u2") if deep else rows.astype(np.uint8)
    wide = values.itemsize
    for plane, part in zip(frame.planes, (values[:height], values[height:]), strict=True):
        padded = np.zeros((part.shape[0], plane.line_size // wide), values.dtype)
        padded[:, :width] = part
        plane.update(padded.tobytes())
    return frame


def as_planar(planes: NDArray[np.uint16], width: int, height: int, *, deep: bool) -> VideoFrame:
    frame = VideoFrame(width, height, "yuv420p10le" if deep else "yuv420p")
    values = planes.astype("<u2" if deep else np.uint8)
    sizes = [(height, width), (height // 2, width // 2), (height // 2, width // 2)]
    start = 0
    for plane, (rows, columns) in zip(frame.planes, sizes, strict=True):
        padded = np.zeros((rows, plane.line_size // values.itemsize), values.dtype)
        padded[:, :columns] = values[start : start + rows * columns].reshape(rows, columns)
        plane.update(padded.tobytes())
        start += rows * columns
    return frame


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("matrix", [1, 5, 9])
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("size", [(64, 48), (322, 242), (1282, 722)])
def test_what_the_gpu_gives_becomes_the_same_rgb(deep: bool, matrix: int, full: bool, size: tuple[int, int]) -> None:
    width, height = size
    planes = np.random.default_rng(width).integers(0, 1024 if deep else 256, width * height * 3 // 2, dtype=np.uint16)
    pictures = []
    for build in (as_planar, as_hardware):
        frame = build(planes, width, height, deep=deep)
        frame.colorspace, frame.color_range = matrix, 2 if full else 1
        frame.time_base = Fraction(1, 25)
        pictures.append(RgbConverter()(frame))
    assert np.array_equal(*pictures)


class StandIn(Nvdec):
    """The CPU in NVDEC's place."""

    def __init__(self) -> None:
        self.decoded = self.left = 0
        self._lock = threading.Lock()
        self._acceleration = None  # type: ignore[assignment]


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """Its pictures are in NV12 or P010, with the names of their colours, as a GPU gives them."""
    original = nvdec.decode_selected

    def decoded(container, stream, timeline, selection, wanted, finish):  # type: ignore[no-untyped-def]
        return original(container, stream, timeline, selection, wanted, lambda frame: finish(of_a_gpu(frame)))

    monkeypatch.setattr(nvdec, "open_video", lambda path, _: open_video(path))
    monkeypatch.setattr(nvdec, "decode_selected", decoded)
    return StandIn()


def of_a_gpu(frame: VideoFrame) -> VideoFrame:
    deep = frame.format.name == "yuv420p10le"
    if not (deep or frame.format.name in ("yuv420p", "yuvj420p")) or frame.width % 2 or frame.height % 2:
        return frame
    if frame.side_data.get("DISPLAYMATRIX") is not None:
        return frame  # it cannot be given to a frame that is made here
    kind = np.dtype("<u2" if deep else np.uint8)
    planes = [
        np.frombuffer(bytes(plane), kind).reshape(plane.height, -1)[:, : plane.width].ravel() for plane in frame.planes
    ]
    copy = as_hardware(np.concatenate(planes).astype(np.uint16), frame.width, frame.height, deep=deep)
    copy.colorspace, copy.color_range = frame.colorspace, frame.color_range
    if frame.time_base is not None:
        copy.time_base = frame.time_base
    return copy


def assert_like_the_cpu(path: Path, gpu: Nvdec) -> None:
    """The same frames, or the same error; damaged pictures aside, which a GPU may fill in otherwise."""
    [found] = DecoderHere(nvdec=gpu).read(path, SPEC, [(None, None)])
    if isinstance(found, MediaError):
        with pytest.raises(MediaError, match=re.escape(str(found))):
            read_frames(path, SPEC)
        return
    expected = read_frames(path, SPEC)
    assert np.array_equal(found.times, expected.times, equal_nan=True)
    if isinstance(gpu, StandIn) or not any("damaged" in warning for warning in expected.warnings):
        assert np.array_equal(found.pixels, expected.pixels)
        assert found.warnings == expected.warnings
    assert gpu.decoded + gpu.left == 1


@pytest.mark.parametrize("name", sorted(CLIPS))
def test_the_frames_are_those_of_the_cpu(name: str, stand_in: StandIn) -> None:
    assert_like_the_cpu(CLIPS[name], stand_in)


def test_h264_is_decoded_there_also_where_nothing_is_saved(stand_in: StandIn) -> None:
    assert_like_the_cpu(H264, stand_in)
    assert (stand_in.decoded, stand_in.left) == (1, 0)
    assert str(stand_in).startswith("nvdec decoded 1 ")


def test_what_it_does_not_take_the_cpu_decodes(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: Path, _: object) -> None:
        raise MediaError(f"{path} has a format that the hardware does not decode")

    monkeypatch.setattr(nvdec, "open_video", refused)
    assert_like_the_cpu(H264, stand_in)
    assert (stand_in.decoded, stand_in.left) == (0, 1)


@WITHOUT_GPU
def test_without_a_gpu_it_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="NVDEC cannot be used here"):
        Nvdec()
    output = str(tmp_path / "out.parquet")
    found = CliRunner().invoke(main, ["embed", "bundle", str(H264), "-o", output, "--decoder", "nvdec"])
    assert found.exit_code == 1
    assert found.stderr.splitlines()[-1].startswith("error: NVDEC cannot be used here")


@pytest.mark.parametrize("other", [("--isolate",), ("--engine", "ray")])
def test_it_decodes_in_this_process_alone(other: tuple[str, ...], tmp_path: Path) -> None:
    output = str(tmp_path / "out.parquet")
    found = CliRunner().invoke(main, ["embed", "bundle", str(H264), "-o", output, "--decoder", "nvdec", *other])
    assert found.exit_code == 2
    assert "leave out --isolate and --engine ray" in found.stderr


def test_a_stream_that_cannot_be_accelerated_is_named(tmp_path: Path) -> None:
    """FFV1, which no GPU of NVIDIA's decodes, so that no driver is asked."""
    clip = tmp_path / "ffv1.mkv"
    with av.open(str(clip), "w") as made:
        stream = made.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for packet in (*stream.encode(VideoFrame(64, 48, "yuv420p")), *stream.encode(None)):
            made.mux(packet)
    acceleration = av.codec.hwaccel.HWAccel("cuda", allow_software_fallback=False)
    with pytest.raises(MediaError, match="the hardware does not decode"), open_video(clip, acceleration):
        pass


@pytest.mark.gpu
@pytest.mark.skipif(read_device() is None, reason="no NVIDIA GPU")
@pytest.mark.parametrize("name", sorted(CLIPS))
def test_on_a_gpu_the_pixels_are_those_of_the_cpu(name: str) -> None:
    try:
        gpu = Nvdec()
    except UnavailableError as error:
        pytest.skip(str(error))
    assert_like_the_cpu(CLIPS[name], gpu)
    if CLIPS[name] == H264:
        assert gpu.decoded == 1
