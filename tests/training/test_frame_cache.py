import os
import signal

import numpy as np
import pytest

from vtr_runtime.decoding import processes
from vtr_runtime.errors import MediaError, StorageError
from vtr_runtime.manifest import FrameSpec
from vtr_runtime.video import read_frames
from vtr_training.data import frame_cache
from vtr_training.data.clip import Clip
from vtr_training.data.frame_cache import cached_frames
from vtr_training.data.source import read_clips

SPEC = FrameSpec(size=32)


@pytest.fixture
def clips(demo, tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"not a video")
    good = read_clips(demo, "test")[:3]
    return [good[0], Clip(broken, ("x",), "test"), good[1], Clip(tmp_path / "absent.mp4", ("y",), "test"), good[2]]


def test_unreadable_clips_are_left_out_and_named(clips, tmp_path, capsys):
    found = cached_frames(clips, SPEC, tmp_path / "cache")
    assert found.clips == (clips[0], clips[2], clips[4])
    assert len(found.pixels) == len(found.mask) == 3
    for clip, pixels, mask in zip(found.clips, found.pixels, found.mask, strict=True):
        expected = read_frames(clip.video, SPEC)
        np.testing.assert_array_equal(pixels, expected.pixels)
        np.testing.assert_array_equal(mask, expected.mask)
    assert len(found.unreadable) == 2
    said = capsys.readouterr().err
    assert said.count("skipped: ") == 2
    assert "broken.mp4" in said
    assert "absent.mp4" in said


def test_a_second_run_decodes_nothing(clips, tmp_path, monkeypatch):
    first = cached_frames(clips, SPEC, tmp_path / "cache")
    monkeypatch.setattr(frame_cache, "read_all", lambda *_, **__: pytest.fail("decoded again"))
    second = cached_frames(clips, SPEC, tmp_path / "cache")
    assert second.clips == first.clips
    np.testing.assert_array_equal(second.pixels, first.pixels)


def test_what_changed_is_decoded_anew(clips, tmp_path, monkeypatch):
    cached_frames(clips[:1], SPEC, tmp_path / "cache")
    read = []
    original = frame_cache.read_all
    monkeypatch.setattr(
        frame_cache, "read_all", lambda *given, **limit: read.append(given) or original(*given, **limit)
    )
    cached_frames(clips[:1], SPEC, tmp_path / "cache")
    assert len(read) == 0
    cached_frames(clips[:1], FrameSpec(size=64), tmp_path / "cache")
    assert len(read) == 1
    copy = tmp_path / "copy.mp4"
    copy.write_bytes(clips[0].video.read_bytes())
    moved = [Clip(copy, ("x",), "test")]
    cached_frames(moved, SPEC, tmp_path / "cache")
    os.utime(copy, ns=(1, 1))
    cached_frames(moved, SPEC, tmp_path / "cache")
    assert len(read) == 3


def test_start_and_end_cut_the_clip(clips, tmp_path):
    part = Clip(clips[0].video, ("x",), "test", start=1.0)
    whole, cut = cached_frames([clips[0], part], SPEC, tmp_path / "cache").pixels
    np.testing.assert_array_equal(cut, read_frames(part.video, SPEC, start=1.0).pixels)
    assert not np.array_equal(cut, whole)


def test_a_clip_that_hangs_the_decoder_costs_its_own_row(clips, tmp_path, monkeypatch):
    """The decoding process stands still over the second clip, as a decoder that never ends would."""
    pids = []
    ask = processes._Child.read

    def stop_over_the_second(self, path, spec, cuts):
        if path == clips[1].video:
            pids.append(self._process.pid)
            os.kill(self._process.pid, signal.SIGSTOP)
        return ask(self, path, spec, cuts)

    monkeypatch.setattr(processes._Child, "read", stop_over_the_second)
    found = cached_frames(clips[:3], SPEC, tmp_path / "cache", seconds=5)
    assert found.clips == (clips[0], clips[2])
    assert len(pids) == len(found.unreadable) == 1
    assert "broken.mp4 took longer than 5 s to decode" in found.unreadable[0]


def test_none_readable(clips, tmp_path):
    with pytest.raises(MediaError, match=r"none of the 1 clips can be read.*broken\.mp4"):
        cached_frames(clips[1:2], SPEC, tmp_path / "cache")


def test_a_place_that_cannot_be_written(clips, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"set data\.cache"):
        cached_frames(clips[:1], SPEC, tmp_path / "file" / "cache")
