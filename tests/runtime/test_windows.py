"""Long videos by windows: each part is what it is alone, and search finds the moment."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from vtr_runtime.cli import main
from vtr_runtime.clips import Clip
from vtr_runtime.errors import MediaError, UsageError
from vtr_runtime.index import Index, write_index
from vtr_runtime.manifest import FrameSpec
from vtr_runtime.model import Model
from vtr_runtime.rows import EmbeddingTable
from vtr_runtime.sampling import ClipTimes, Windows
from vtr_runtime.video import VideoFile, read_frames

SPEC = FrameSpec(count=4, size=32)


@pytest.mark.parametrize(
    ("length", "window", "stride", "want"),
    [
        (25, 10, 10, [(0, 10), (10, 20), (20, 25)]),
        (25, 10, 5, [(0, 10), (5, 15), (10, 20), (15, 25)]),
        (20, 10, 10, [(0, 10), (10, 20)]),
        (20.1, 10, 10, [(0, 10), (10, 20), (20, 20.1)]),
        (3, 10, 5, [(0, 3)]),
        (0, 10, 5, [(0, None)]),
        (0.3, 0.1, 0.1, [(0, 0.1), (0.1, 0.2), (0.2, 0.3)]),
    ],
)
def test_windows_cover_a_clip(
    length: float, window: float, stride: float, want: list[tuple[float, float | None]]
) -> None:
    found = Windows(window, stride).cuts(length)
    assert [start for start, _ in found] == pytest.approx([start for start, _ in want])
    assert [end for _, end in found] == [None if end is None else pytest.approx(end) for _, end in want]


@pytest.mark.parametrize(("window", "stride"), [(0, 1), (-1, 1), (1, 0), (float("nan"), 1), (float("inf"), 1), (1, 2)])
def test_windows_that_make_no_sense_are_refused(window: float, stride: float) -> None:
    with pytest.raises(UsageError, match=r"stride above the window|give seconds above 0"):
        Windows(window, stride)


def test_windows_without_a_frame_are_left_out() -> None:
    """In a gap of the film, and behind the beginning of its last frame."""
    times = ClipTimes([Fraction(0), Fraction(1), Fraction(5, 2), Fraction(6)], Fraction(3, 2))
    assert times.windows(Windows(1, 1)) == [(0, 1), (1, 2), (2, 3), (6, 7)]
    assert times.windows(Windows(10, 5)) == [(0, 7.5)]


def test_parts_that_are_read_together_are_what_they_are_alone(clips: Path) -> None:
    compared = 0
    for path in sorted(clips.iterdir()):
        try:
            file = VideoFile(path)
        except MediaError:
            continue
        cuts = [(None, None), *Windows(0.4, 0.25).cuts(min(file.length, 4))]
        for (start, end), found in zip(cuts, file.read_cuts(SPEC, cuts), strict=True):
            if isinstance(found, MediaError):
                with pytest.raises(MediaError) as caught:
                    read_frames(path, SPEC, start=start, end=end)
                assert str(found) == str(caught.value)
                continue
            alone = read_frames(path, SPEC, start=start, end=end)
            assert np.array_equal(found.pixels, alone.pixels)
            assert np.array_equal(found.times, alone.times, equal_nan=True)
            assert found.warnings == alone.warnings
            compared += 1
    assert compared > 50


def test_a_model_embeds_each_window(small_model: Model, good_clips: list[Path], tmp_path: Path) -> None:
    (tmp_path / "none.mp4").write_bytes(b"")
    paths = [good_clips[1], tmp_path / "none.mp4", good_clips[2]]
    found = list(small_model.embed_clips(map(Clip, paths), windows=Windows(0.5, 0.25)))
    bad = [item for item in found if item.status == "error"]
    assert [item.clip for item in bad] == [Clip(paths[1])]
    parts = {path: [item for item in found if item.clip.path == path] for path in (paths[0], paths[2])}
    assert [item.clip.path for item in found] == sorted((item.clip.path for item in found), key=paths.index)
    assert len(parts[paths[0]]) == 16  # 4.004 s: the last part is short
    assert len(parts[paths[2]]) == 3  # one second
    cuts = [item.clip for item in found if item.status != "error"]
    alone = list(small_model.embed_clips(cuts))
    for together, single in zip((item for item in found if item.status != "error"), alone, strict=True):
        assert together.embedding is not None
        assert single.embedding is not None
        assert np.abs(together.embedding - single.embedding).max() < 1e-6
        assert together.times.tolist() == single.times.tolist()
        assert (together.clip.start or 0) <= together.times.min()
        assert together.clip.end is not None
        assert together.times.max() < together.clip.end


def test_a_clip_that_is_cut_already_takes_no_windows(small_model: Model, good_clips: list[Path]) -> None:
    with pytest.raises(UsageError, match="is cut already"):
        list(small_model.embed_clips([Clip(good_clips[0], 0.0, 1.0)], windows=Windows(1, 1)))


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_moments_are_grouped_by_file(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    rows, queries = unit(random.normal(size=(60, 8))), unit(random.normal(size=(5, 8)))
    names = [f"{place}.mp4" for place in random.integers(0, 9, 60)]
    spans = np.stack([np.arange(60.0), np.arange(60.0) + 1], axis=1)
    write_index(tmp_path / "x.vtri", EmbeddingTable(rows, tuple(name.encode() for name in names), spans, "s"))
    for k, moments in ((1, 1), (3, 2), (20, 100)):
        found = Index(tmp_path / "x.vtri").search_files(queries, k, moments)
        for query, files in zip(queries, found, strict=True):
            scores = rows.astype(np.float64) @ query
            best = {name: max(scores[row] for row in range(60) if names[row] == name) for name in set(names)}
            order = sorted(best, key=lambda name: -best[name])[:k]
            assert [str(hits[0].path) for hits in files] == order
            for name, hits in zip(order, files, strict=True):
                own = sorted((row for row in range(60) if names[row] == name), key=lambda row: -scores[row])
                assert [hit.id for hit in hits] == own[:moments]
                assert [hit.start for hit in hits] == [float(row) for row in own[:moments]]


def test_from_the_command_line(small_bundle: Path, good_clips: list[Path], tmp_path: Path) -> None:
    runner, output = CliRunner(), tmp_path / "x.parquet"
    words = ["embed", str(small_bundle), str(good_clips[1]), str(good_clips[2]), "-o", str(output)]
    done = runner.invoke(main, [*words, "--window", "1", "--stride", "0.5"])
    assert done.exit_code == 0, done.output
    rows = pq.read_table(output).to_pylist()
    assert [(row["start"], row["end"]) for row in rows[:2]] == [(0, 1), (0.5, 1.5)]
    searched = runner.invoke(main, ["search", str(small_bundle), str(output), "a man", "--moments", "2", "--json"])
    [answer] = json.loads(searched.stdout)
    assert len({hit["path"] for hit in answer["hits"]}) == 2
    assert len(answer["hits"]) == 3  # two moments of one, and the other has one window
    shown = runner.invoke(main, ["search", str(small_bundle), str(output), "a man", "--moments", "2"])
    assert shown.stdout.count(good_clips[1].name) == 1
    alone = runner.invoke(main, [*words, "--overwrite", "--stride", "5"])
    assert alone.exit_code == 2
    assert "give --window too" in alone.stderr
