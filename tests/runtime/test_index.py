"""The Parquet tables and the index, against plain numpy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vtr_runtime import index as index_module
from vtr_runtime.clips import Clip, EmbeddedClip
from vtr_runtime.embeddings import EmbeddingTable, RowLayout, read_embeddings, write_embeddings
from vtr_runtime.errors import DataError, SpaceError
from vtr_runtime.index import Index, check_space, merge_tables, write_index


def unit_rows(count: int, dim: int, seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def items(count: int, dim: int = 8, seed: int = 0) -> list[EmbeddedClip]:
    rows = unit_rows(count, dim, seed)
    good = [
        EmbeddedClip(Clip(Path(f"clip{i}.mp4")), "ok", embedding=rows[i], times=np.arange(3.0)) for i in range(count)
    ]
    return [*good, EmbeddedClip(Clip(Path("bad.mp4")), "error", "bad.mp4 is empty")]


def write(path: Path, count: int, *, seed: int = 0, space: str = "s") -> Path:
    write_embeddings(path, items(count, seed=seed), RowLayout(8, space, "v"))
    return path


def test_a_table_comes_back_as_it_was_written(tmp_path: Path) -> None:
    table = read_embeddings(write(tmp_path / "x.parquet", 5))
    assert np.array_equal(table.vectors, unit_rows(5, 8, 0))
    assert table.paths == tuple(f"clip{i}.mp4".encode() for i in range(5))
    assert np.isnan(table.spans).all()
    assert table.space == "s"


def test_the_rows_that_failed_stay_in_the_file(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    rows = pq.read_table(write(tmp_path / "x.parquet", 2)).to_pylist()
    assert [row["status"] for row in rows] == ["ok", "ok", "error"]
    assert rows[2]["error"] == "bad.mp4 is empty"
    assert rows[2]["embedding"] is None
    assert rows[0]["times"] == [0.0, 1.0, 2.0]


def test_names_that_are_no_utf8_and_spans_survive(tmp_path: Path) -> None:
    import os

    path = Path(os.fsdecode(b"caf\xe9.mp4"))
    item = EmbeddedClip(Clip(path, 1.5, 2.5), "ok", embedding=unit_rows(1, 8, 0)[0])
    write_embeddings(tmp_path / "x.parquet", [item], RowLayout(8, "s", "v"))
    write_index(tmp_path / "x.vtri", read_embeddings(tmp_path / "x.parquet"))
    [[hit]] = Index(tmp_path / "x.vtri").search(unit_rows(1, 8, 0), 3)
    assert (hit.path, hit.start, hit.end) == (path, 1.5, 2.5)
    assert hit.score == pytest.approx(1)


@pytest.mark.parametrize("block", [1, 3, 100])
def test_search_equals_sorting_all_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(index_module, "BLOCK_ROWS", block)
    rows, queries = unit_rows(17, 8, 1), unit_rows(4, 8, 2)
    rows[5] = rows[9] = rows[2]  # ties: the earlier row first
    paths = tuple(f"{i}.mp4".encode() for i in range(17))
    write_index(tmp_path / "x.vtri", EmbeddingTable(rows, paths, np.full((17, 2), np.nan), "s"))
    found = Index(tmp_path / "x.vtri").search(queries, 6)
    for query, hits in zip(queries, found, strict=True):
        scores = [float(query @ row) for row in rows]
        # float32 sums differ in the last place from a matrix product; the order of distinct scores does not
        want = sorted(range(17), key=lambda i: (-round(scores[i], 6), i))[:6]
        assert [hit.id for hit in hits] == want
        assert [hit.score for hit in hits] == pytest.approx([scores[i] for i in want], abs=1e-6)


def test_an_empty_index_finds_nothing(tmp_path: Path) -> None:
    write_index(tmp_path / "x.vtri", EmbeddingTable(np.zeros((0, 8), np.float32), (), np.zeros((0, 2)), "s"))
    assert Index(tmp_path / "x.vtri").search(unit_rows(2, 8, 0), 5) == [[], []]


def test_tables_of_one_space_are_joined_and_others_refused(tmp_path: Path) -> None:
    paths = [write(tmp_path / "a.parquet", 2), write(tmp_path / "b.parquet", 3, seed=1)]
    assert merge_tables(paths, "s").vectors.shape == (5, 8)
    paths.append(write(tmp_path / "c.parquet", 1, space="another"))
    with pytest.raises(SpaceError, match=r"c\.parquet holds embeddings of another model"):
        merge_tables(paths, "s")


def test_an_index_of_another_space_is_refused(tmp_path: Path) -> None:
    write_index(tmp_path / "x.vtri", read_embeddings(write(tmp_path / "x.parquet", 2)))
    with pytest.raises(SpaceError, match="was made with another model"):
        check_space(Index(tmp_path / "x.vtri"), "another")


def test_queries_of_another_length_are_refused(tmp_path: Path) -> None:
    write_index(tmp_path / "x.vtri", read_embeddings(write(tmp_path / "x.parquet", 2)))
    with pytest.raises(SpaceError, match="length 8"):
        Index(tmp_path / "x.vtri").search(unit_rows(1, 4, 0), 1)


@pytest.mark.parametrize("content", [b"", b"no index", b"\xff" * 100])
def test_what_is_no_index_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.vtri").write_bytes(content)
    with pytest.raises(DataError, match=r"x\.vtri is not a \.vtri index"):
        Index(tmp_path / "x.vtri")


def test_a_truncated_index_is_named(tmp_path: Path) -> None:
    write_index(tmp_path / "x.vtri", read_embeddings(write(tmp_path / "x.parquet", 50)))
    data = (tmp_path / "x.vtri").read_bytes()
    (tmp_path / "x.vtri").write_bytes(data[:-10])
    with pytest.raises(DataError, match=r"is not a \.vtri index"):
        Index(tmp_path / "x.vtri")


def test_an_index_whose_offsets_lead_astray_is_refused(tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    write_index(tmp_path / "x.vtri", read_embeddings(write(tmp_path / "x.parquet", 3)))
    tensors = load_file(tmp_path / "x.vtri")
    tensors["offsets"] = tensors["offsets"] + 5
    metadata = {"schema": "1", "space": "s", "metric": "cosine", "count": "3"}
    save_file(tensors, tmp_path / "y.vtri", metadata)
    with pytest.raises(DataError, match="do not fit together"):
        Index(tmp_path / "y.vtri")


def test_a_missing_index_and_a_foreign_schema_are_named(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    with pytest.raises(DataError, match="does not exist"):
        Index(tmp_path / "x.vtri")
    save_file({"embeddings": np.zeros((1, 2), np.float32)}, tmp_path / "y.vtri", {"schema": "99"})
    with pytest.raises(DataError, match="not an index of schema 1"):
        Index(tmp_path / "y.vtri")


def test_a_parquet_file_without_embeddings_is_named(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"a": [1]}), tmp_path / "x.parquet")
    with pytest.raises(DataError, match="holds no embeddings"):
        read_embeddings(tmp_path / "x.parquet")
    (tmp_path / "y.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        read_embeddings(tmp_path / "y.parquet")
