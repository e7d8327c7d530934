"""Files that nobody should be given: each costs its own row, and no more memory or time than any other."""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
import pytest

from vtr_runtime import Clip, EmbeddedClip, Model, Windows
from vtr_runtime.decoding import Cut, DecoderHere, DecoderProcesses
from vtr_runtime.errors import MediaError
from vtr_runtime.media import timeline
from vtr_runtime.video import packet_times


def write_video(path: Path, frames: int, *, rate: int = 10, side: int = 64, **options: str) -> None:
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream("libx264", rate=rate, options={"g": "10", "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = side, side, "yuv420p"
        for number in range(frames):
            grey = np.full((side, side, 3), number % 256, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
        container.mux(stream.encode(None))


def hundred_million_frames(path: Path) -> None:
    """The last fragment's table claims 10^8 frames, each by a default: no byte of the file stands for them."""
    write_video(path, 20, movflags="frag_keyframe+empty_moov+default_base_moof")
    data = bytearray(path.read_bytes())
    struct.pack_into(">II", data, data.rindex(b"trun") + 4, 0, 10**8)
    path.write_bytes(data)


def largest_gif(path: Path) -> None:
    """A picture of 65535 x 65535 pixels in 60 bytes."""
    from PIL import Image

    Image.new("P", (8, 8)).save(path, format="GIF")
    data = bytearray(path.read_bytes())
    struct.pack_into("<HH", data, 6, 65535, 65535)
    place = data.index(b"\x2c\x00\x00\x00\x00\x08\x00\x08\x00")
    struct.pack_into("<HH", data, place + 5, 65535, 65535)
    path.write_bytes(data)


def widest_avi(path: Path) -> None:
    """Raw video whose head says 65535 x 65535."""
    with av.open(str(path), "w", format="avi") as container:
        stream = container.add_stream("rawvideo", rate=1)
        stream.width, stream.height, stream.pix_fmt = 16, 16, "yuv420p"
        container.mux(stream.encode(av.VideoFrame(16, 16, "yuv420p")))
    data = bytearray(path.read_bytes())
    place = data.index(b"strf")
    struct.pack_into("<ii", data, place + 12, 65535, 65535)
    path.write_bytes(data)


@pytest.fixture(params=["here", "processes"])
def decoder(request: pytest.FixtureRequest) -> Iterator[DecoderHere | DecoderProcesses]:
    # Little enough that a table of 10^8 frames does not fit.
    made = DecoderHere() if request.param == "here" else DecoderProcesses(memory=1 << 30)
    yield made
    made.close()


def embed(model: Model, path: Path, decoder: DecoderHere | DecoderProcesses) -> EmbeddedClip:
    [item] = model.embed_clips([Clip(path)], decoder=decoder)
    return item


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: os.mkfifo(path), "is not a regular file"),
        (lambda path: path.mkdir(), "is a folder"),
        (lambda path: path.write_bytes(b""), "is empty"),
        (lambda path: path.symlink_to("nowhere"), "does not exist"),
        (largest_gif, "no frame of .* can be decoded"),
        (widest_avi, "no frame of .* can be decoded"),
    ],
)
def test_a_bad_file_is_named(
    small_model: Model,
    tmp_path: Path,
    decoder: DecoderHere | DecoderProcesses,
    make: Callable[[Path], object],
    words: str,
) -> None:
    path = tmp_path / "bad\nname.mp4"
    make(path)
    found = embed(small_model, path, decoder)
    assert found.status == "error"
    assert re.search(words, found.message, re.DOTALL)
    assert str(path) in found.message


def test_a_table_of_a_hundred_million_frames_is_refused_in_a_bounded_process(
    small_model: Model, tmp_path: Path
) -> None:
    apart = DecoderProcesses(memory=1 << 30)
    try:
        hundred_million_frames(tmp_path / "x.mp4")
        found = embed(small_model, tmp_path / "x.mp4", apart)
        assert found.status == "error"
        assert "Cannot allocate memory" in found.message
        write_video(tmp_path / "y.mp4", 5)
        assert embed(small_model, tmp_path / "y.mp4", apart).status == "ok"
    finally:
        apart.close()


def test_too_many_packets_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_video(tmp_path / "x.mp4", 20)
    monkeypatch.setattr(timeline, "MAX_PACKETS", 20)
    assert len(packet_times(tmp_path / "x.mp4")) == 20
    monkeypatch.setattr(timeline, "MAX_PACKETS", 19)
    with pytest.raises(MediaError, match="more than 19 frames, the limit"):
        packet_times(tmp_path / "x.mp4")


def test_one_frame_and_two_hours(small_model: Model, tmp_path: Path, decoder: DecoderHere | DecoderProcesses) -> None:
    write_video(tmp_path / "one.mp4", 1)
    write_video(tmp_path / "long.mp4", 7200, rate=1, side=32)
    one, long = (embed(small_model, tmp_path / name, decoder) for name in ("one.mp4", "long.mp4"))
    assert (one.status, one.times.tolist()) == ("ok", [0.0])
    assert (long.status, long.times[0], long.times[-1]) == ("ok", 300, 6900)


def test_a_file_that_vanishes_while_it_is_read(small_model: Model, tmp_path: Path) -> None:
    """After its windows are known, before the later ones are read."""
    write_video(tmp_path / "x.mp4", 100)

    class Vanishing(DecoderHere):
        def windows(self, path: Path, windows: Windows) -> list[Cut]:
            found = super().windows(path, windows)
            path.unlink()
            return found

    found = list(small_model.embed_clips([Clip(tmp_path / "x.mp4")], windows=Windows(2, 2), decoder=Vanishing()))
    assert [item.status for item in found] == ["error"] * 5
    assert all("does not exist" in item.message and item.stamp is None for item in found)


def test_a_file_that_shrinks_while_it_is_read(small_model: Model, tmp_path: Path) -> None:
    write_video(tmp_path / "x.mkv", 100)

    class Shrinking(DecoderHere):
        def windows(self, path: Path, windows: Windows) -> list[Cut]:
            found = super().windows(path, windows)
            os.truncate(path, path.stat().st_size // 2)
            return found

    found = list(small_model.embed_clips([Clip(tmp_path / "x.mkv")], windows=Windows(2, 2), decoder=Shrinking()))
    assert found[0].status == "ok"
    assert found[-1].status in ("warning", "error")


def test_a_file_that_may_not_be_read(small_model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_video(tmp_path / "x.mp4", 5)
    opened = Path.open

    def refuse(path: Path, *arguments: object) -> object:  # nothing is forbidden to root, who may run this test
        if path.name == "x.mp4":
            raise PermissionError(13, "Permission denied")
        return opened(path, *arguments)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", refuse)
    found = embed(small_model, tmp_path / "x.mp4", DecoderHere())
    assert "cannot be opened (Permission denied); check its permissions" in found.message
