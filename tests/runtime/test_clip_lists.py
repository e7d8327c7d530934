"""Which clips a job is of."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vtr_runtime.clip_lists import gather, read_list
from vtr_runtime.clips import Clip
from vtr_runtime.errors import DataError, UsageError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "b" / "c").mkdir(parents=True)
    for name in ("b/2.mp4", "b/1.MOV", "b/c/3.mp4", "a.webm", "x.txt"):
        (tmp_path / name).write_bytes(b"")
    return tmp_path


def names(folder: Path, clips: tuple[Clip, ...]) -> list[str]:
    return [str(clip.path.relative_to(folder)) for clip in clips]


def test_folders_are_searched_in_a_fixed_order(folder: Path) -> None:
    found = gather([folder / "x.txt", folder, folder / "a.webm"])
    assert names(folder, found.clips) == ["x.txt", "a.webm", "b/1.MOV", "b/2.mp4", "b/c/3.mp4"]
    assert [path.name for path in found.skipped] == ["x.txt"]


def test_patterns_are_matched_in_order(folder: Path) -> None:
    assert names(folder, gather([folder / "b" / "*.mp4"]).clips) == ["b/2.mp4"]
    assert names(folder, gather([folder / "**" / "*.mp4"]).clips) == ["b/2.mp4", "b/c/3.mp4"]
    with pytest.raises(UsageError, match=r"no file matches .*\*\.avi"):
        gather([folder / "*.avi"])


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(folder: Path) -> None:
    (folder / "take [1].mp4").write_bytes(b"")
    assert names(folder, gather([folder / "take [1].mp4"]).clips) == ["take [1].mp4"]


def test_a_text_list_holds_any_name(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(b"a b.mp4\r\n\ncaf\xe9.mp4\n")
    assert read_list(tmp_path / "list.txt") == [Clip(Path("a b.mp4")), Clip(Path(os.fsdecode(b"caf\xe9.mp4")))]


def test_a_list_may_come_from_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"a.mp4\nb.mp4")))
    assert read_list(Path("-")) == [Clip(Path("a.mp4")), Clip(Path("b.mp4"))]


def test_a_parquet_list_may_cut_and_repeat(tmp_path: Path) -> None:
    table = {
        "path": ["a.mp4", "a.mp4", "a.mp4"],
        "start": [0.0, 2.0, 0.0],
        "end": [2.0, None, 2.0],
        "note": ["", "", ""],
    }
    pq.write_table(pa.table(table), tmp_path / "list.parquet")
    found = gather([Path("b.mp4")], [tmp_path / "list.parquet"])
    assert found.clips == (Clip(Path("b.mp4")), Clip(Path("a.mp4"), 0.0, 2.0), Clip(Path("a.mp4"), 2.0, None))


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"file": ["a"]}, "has no column path; its columns are file"),
        ({"path": ["a", None]}, "row 1 of the list .* has no path"),
        ({"path": ["a"], "start": [-1.0]}, "row 0 of the list .*: start is -1"),
        ({"path": ["a"], "start": [3.0], "end": [1.0]}, "row 0 of the list .*: end is 1"),
    ],
)
def test_a_bad_row_of_a_list_is_named(tmp_path: Path, columns: dict[str, list[object]], words: str) -> None:
    pq.write_table(pa.table(columns), tmp_path / "list.parquet")
    with pytest.raises(DataError, match=words):
        read_list(tmp_path / "list.parquet")


def test_what_is_no_list_is_named(tmp_path: Path) -> None:
    (tmp_path / "list.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        read_list(tmp_path / "list.parquet")
    with pytest.raises(DataError, match="is not a file"):
        read_list(tmp_path)
