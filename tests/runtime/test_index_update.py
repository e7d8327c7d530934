"""Indexes made of indexes: what is added, replaced, deleted, pruned, and which ids stay."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from vtr_runtime.clips import Clip, EmbeddedClip, FileStamp
from vtr_runtime.embeddings import RowLayout, write_embeddings
from vtr_runtime.errors import DataError, SpaceError
from vtr_runtime.index import Index, open_rows, plan_update, write_index, write_update
from vtr_runtime.rows import EmbeddingTable

DIM = 8


def rows_of(names: str, seed: int = 0, **rest: object) -> EmbeddingTable:
    """A row a letter: file `a` is named a.mp4, several rows of one file follow one another in time."""
    random = np.random.default_rng(seed)
    vectors = random.normal(size=(len(names), DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    times = [names[:place].count(name) for place, name in enumerate(names)]
    spans = np.stack([np.array(times, float), np.array(times) + 1.0], axis=1).reshape(-1, 2)
    return EmbeddingTable(vectors, tuple(f"{name}.mp4".encode() for name in names), spans, "s", **rest)  # type: ignore[arg-type]


def written(path: Path, *sources: object, **rest: object) -> Index:
    write_update(path, plan_update(sources, **rest))  # type: ignore[arg-type]
    return Index(path)


def names_in(index: Index) -> str:
    return "".join(Path(os.fsdecode(path)).stem for path in index.table.paths)


def test_a_later_source_replaces_all_rows_of_its_files(tmp_path: Path) -> None:
    old, new = rows_of("aabcc"), rows_of("cbd", 1)
    index = written(tmp_path / "x.vtri", old, new)
    assert names_in(index) == "aacbd"
    assert np.array_equal(index.vectors, np.concatenate([old.vectors[:2], new.vectors]))
    assert index.table.spans.tolist() == [[0, 1], [1, 2], [0, 1], [0, 1], [0, 1]]
    plan = plan_update([old, new])
    assert (plan.count, plan.replaced) == (5, 2)
    assert names_in(written(tmp_path / "y.vtri", old, new, rows_of("aa", 2), rows_of("a", 3))) == "cbda"


def test_rows_that_stay_keep_their_ids_and_no_id_comes_twice(tmp_path: Path) -> None:
    first = written(tmp_path / "x.vtri", rows_of("abcd"))
    assert first.ids.tolist() == [0, 1, 2, 3]
    second = written(tmp_path / "x.vtri", first, rows_of("be", 1), delete=[b"d.mp4"])
    assert (names_in(second), second.ids.tolist()) == ("acbe", [0, 2, 4, 5])
    third = written(tmp_path / "x.vtri", second, delete=[b"e.mp4", b"b.mp4"])
    assert (names_in(third), third.ids.tolist(), third.next_id) == ("ac", [0, 2], 6)
    last = written(tmp_path / "x.vtri", third, rows_of("e", 2), written(tmp_path / "y.vtri", rows_of("fg", 3)))
    assert (names_in(last), last.ids.tolist()) == ("acefg", [0, 2, 6, 7, 8])


def test_the_same_sources_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("x", "y"):
        write_index(tmp_path / name, rows_of("abc"), rows_of("cd", 1))
    assert (tmp_path / "x").read_bytes() == (tmp_path / "y").read_bytes()


def test_an_index_replaces_itself_while_it_is_open(tmp_path: Path) -> None:
    before = written(tmp_path / "x.vtri", rows_of("ab"))
    write_update(tmp_path / "x.vtri", plan_update([before, rows_of("c", 1)]))
    assert names_in(before) == "ab"
    assert names_in(Index(tmp_path / "x.vtri")) == "abc"


def test_folders_and_files_are_deleted_by_name(tmp_path: Path) -> None:
    paths = (b"in/a.mp4", b"in/deep/b.mp4", b"inside.mp4", b"c.mp4")
    source = rows_of("abcd")
    table = EmbeddingTable(source.vectors, paths, source.spans, "s")
    assert plan_update([table], delete=[b"in"]).keep[0].tolist() == [False, False, True, True]
    assert plan_update([table], delete=[b"in/"]).deleted == 2
    assert plan_update([table], delete=[b"in/deep", b"c.mp4"]).keep[0].tolist() == [True, False, True, False]
    with pytest.raises(DataError, match=r"no row is of 'd\.mp4', which is to be deleted"):
        plan_update([table], delete=[b"d.mp4"])
    assert written(tmp_path / "x.vtri", table, delete=list(paths)).count == 0


def stamped(files: dict[str, FileStamp | None]) -> EmbeddingTable:
    table = rows_of("abcdefg"[: len(files)])
    stamps = np.array([[-1, -1] if stamp is None else [stamp.size, stamp.mtime_ns] for stamp in files.values()])
    paths = tuple(os.fsencode(name) for name in files)
    return EmbeddingTable(table.vectors, paths, table.spans, "s", stamps.astype(np.int64))


def stamp_of(path: Path) -> FileStamp:
    found = path.stat()
    return FileStamp(found.st_size, found.st_mtime_ns)


def test_files_that_are_gone_or_changed_are_pruned(tmp_path: Path) -> None:
    files: dict[str, FileStamp | None] = {}
    for name in ("same", "size", "time", "unknown", "gone"):
        path = tmp_path / os.fsdecode(name.encode() + b"\xe9.mp4")
        path.write_bytes(b"video")
        files[str(path)] = stamp_of(path)
    _, size, time, unknown, gone = (Path(name) for name in files)
    size.write_bytes(b"another")
    os.utime(size, ns=(0, files[str(size)].mtime_ns))  # type: ignore[union-attr]
    os.utime(time, ns=(0, 1))
    files[str(unknown)] = None
    gone.unlink()
    plan = plan_update([stamped(files)], prune=True)
    assert plan.keep[0].tolist() == [True, False, False, True, False]
    assert (plan.gone, plan.changed, plan.unstamped) == (1, 2, 1)
    index = written(tmp_path / "x.vtri", stamped(files))
    assert index.files() == {os.fsencode(name): stamp for name, stamp in files.items() if stamp is not None}
    assert names_in(written(tmp_path / "y.vtri", index, prune=True)) == names_in(index)[:5] + unknown.stem


def test_the_newest_stamp_of_a_file_counts(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"old")
    old = stamped({str(path): stamp_of(path)})
    path.write_bytes(b"newer")
    assert plan_update([old, stamped({str(path): stamp_of(path)})], prune=True).count == 1
    assert plan_update([old], prune=True).count == 0


def test_an_index_whose_files_are_all_gone_is_not_emptied(tmp_path: Path) -> None:
    table = stamped({str(tmp_path / "a.mp4"): FileStamp(1, 1), str(tmp_path / "b.mp4"): FileStamp(1, 1)})
    with pytest.raises(DataError, match="all 2 files of the index are gone"):
        plan_update([table], prune=True)


def test_what_could_not_be_embedded_again_keeps_its_rows_and_is_named(tmp_path: Path) -> None:
    clips = [Clip(Path("a.mp4")), Clip(Path("d.mp4")), Clip(Path("b.mp4"), 0, 1), Clip(Path("b.mp4"), 1, 2)]
    vector = rows_of("a").vectors[0]
    items = [
        EmbeddedClip(clips[0], "error", "a is torn"),
        EmbeddedClip(clips[1], "error", "d is torn"),
        EmbeddedClip(clips[2], "ok", embedding=vector),
        EmbeddedClip(clips[3], "error", "b ends early"),
    ]
    write_embeddings(tmp_path / "new.parquet", items, RowLayout(DIM, "s", "v"))
    plan = plan_update([rows_of("abb"), open_rows(tmp_path / "new.parquet")])
    assert [keep.tolist() for keep in plan.keep] == [[True, False, False], [True]]
    assert plan.failed == ((b"a.mp4", "a is torn", True), (b"d.mp4", "d is torn", False))


def test_half_and_frames_survive_an_update(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).normal(size=(6, 3, DIM)).astype(np.float16)
    old, new = rows_of("abcd", frame_vectors=frames[:4]), rows_of("be", 1, frame_vectors=frames[4:])
    write_update(tmp_path / "x.vtri", plan_update([old]), half=True)
    index = Index(tmp_path / "x.vtri")
    assert (index.half, index.frames) == (True, 3)
    write_update(tmp_path / "y.vtri", plan_update([index, new]), half=index.half)
    both = Index(tmp_path / "y.vtri")
    assert np.array_equal(both.frames_of(np.arange(5)), frames[[0, 2, 3, 4, 5]].astype(np.float32))
    want = np.concatenate([old.vectors[[0, 2, 3]], new.vectors]).astype(np.float16)
    assert np.array_equal(both.vectors, want)
    write_update(tmp_path / "z.vtri", plan_update([both]), frames=False)
    assert (Index(tmp_path / "z.vtri").half, Index(tmp_path / "z.vtri").frames) == (False, None)


def test_sources_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    frames = np.zeros((1, 3, DIM), np.float16)
    with_frames, without = rows_of("a", frame_vectors=frames, name="A"), rows_of("b", name="B")
    for sources in ([with_frames, without], [without, with_frames]):
        with pytest.raises(DataError, match="A holds 3 frames' embeddings a row and B none"):
            write_update(tmp_path / "x.vtri", plan_update(sources))
    with pytest.raises(DataError, match="B holds video rows of length 8 and A text rows of length 8"):
        plan_update([rows_of("a", kind="text", name="A"), without])
    with pytest.raises(SpaceError, match="B holds embeddings of another model"):
        plan_update([without], space="t")


def test_open_rows_tells_parquet_from_an_index(tmp_path: Path) -> None:
    item = EmbeddedClip(Clip(Path("a.mp4")), "ok", embedding=rows_of("a").vectors[0])
    write_embeddings(tmp_path / "x", [item], RowLayout(DIM, "s", "v"))
    write_index(tmp_path / "y", open_rows(tmp_path / "x"))
    assert isinstance(open_rows(tmp_path / "y"), Index)
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        open_rows(tmp_path / "none.parquet")
    with pytest.raises(DataError, match="does not exist"):
        open_rows(tmp_path / "none.vtri")
