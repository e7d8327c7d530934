"""The Parquet tables and the index, against plain numpy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vtr_runtime import embeddings
from vtr_runtime.clips import Clip, EmbeddedClip, FileStamp
from vtr_runtime.embeddings import EmbeddingFile, RowLayout, read_embeddings, write_embeddings
from vtr_runtime.errors import DataError, SpaceError, UsageError
from vtr_runtime.index import Index, check_space, exact, plan_update, write_index, write_update
from vtr_runtime.index.exact import float32_of_half
from vtr_runtime.rows import EmbeddingTable
from vtr_runtime.tensor_file import TensorStream, stream_tensors


def unit_rows(count: int, dim: int, seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def items(count: int, dim: int = 8, seed: int = 0) -> list[EmbeddedClip]:
    rows = unit_rows(count, dim, seed)
    good = [
        EmbeddedClip(Clip(Path(f"clip{i}.mp4")), "ok", embedding=rows[i], times=np.arange(3.0)) for i in range(count)
    ]
    return [*good, EmbeddedClip(Clip(Path("bad.mp4")), "error", "bad.mp4 is empty")]


def table(rows: np.ndarray, **rest: object) -> EmbeddingTable:
    names = tuple(f"{i}.mp4".encode() for i in range(len(rows)))
    return EmbeddingTable(rows, names, np.full((len(rows), 2), np.nan), "s", **rest)  # type: ignore[arg-type]


def write(path: Path, count: int, *, seed: int = 0, space: str = "s") -> Path:
    write_embeddings(path, items(count, seed=seed), RowLayout(8, space, "v"))
    return path


def test_a_table_comes_back_as_it_was_written(tmp_path: Path) -> None:
    found = read_embeddings(write(tmp_path / "x.parquet", 5))
    assert np.array_equal(found.vectors, unit_rows(5, 8, 0))
    assert found.paths == tuple(f"clip{i}.mp4".encode() for i in range(5))
    assert np.isnan(found.spans).all()
    assert (found.space, found.frames, dict(found.failed)) == ("s", None, {b"bad.mp4": "bad.mp4 is empty"})
    assert (found.table.stamps == -1).all()


def test_stamps_and_frames_come_back_through_parquet_and_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embeddings, "MAX_ROW_GROUP", 3)
    rows, frames = unit_rows(8, 8, 0), unit_rows(40, 8, 1).reshape(8, 5, 8)
    frames[2, 3:] = 0
    given: list[EmbeddedClip] = []
    for i in range(8):
        stamp = None if i == 4 else FileStamp(10 + i, 2**60 + i)
        given.append(EmbeddedClip(Clip(Path(f"{i}.mp4")), "ok", "", rows[i], np.zeros(0), frames[i], stamp))
        given.append(EmbeddedClip(Clip(Path(f"bad{i}.mp4")), "error", "it is bad"))
    write_embeddings(tmp_path / "x.parquet", given, RowLayout(8, "s", "v", 5))
    write_index(tmp_path / "x.vtri", EmbeddingFile(tmp_path / "x.parquet"))
    index = Index(tmp_path / "x.vtri")
    assert np.array_equal(index.vectors, rows)
    assert np.array_equal(index.frames_of(np.array([5, 2])), frames[[5, 2]].astype(np.float16).astype(np.float32))
    want = {f"{i}.mp4".encode(): FileStamp(10 + i, 2**60 + i) for i in range(8) if i != 4}
    assert index.files() == want


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


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("block", [1, 3, 100])
def test_search_equals_sorting_all_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int, dtype: type
) -> None:
    monkeypatch.setattr(exact, "BLOCK_ROWS", block)
    monkeypatch.setattr(exact, "HALF_ROWS", 2)
    monkeypatch.setattr(exact, "QUERIES_AT_ONCE", 3)
    rows, queries = unit_rows(40, 8, 1), unit_rows(7, 8, 2)
    rows[5] = rows[9] = rows[2]  # ties: the earlier row first
    rows[20:31] = rows[0]
    write_update(tmp_path / "x.vtri", plan_update([table(rows)]), half=dtype is np.float16)
    index = Index(tmp_path / "x.vtri")
    assert index.vectors.dtype == dtype
    kept = rows.astype(dtype).astype(np.float64)
    for k in (1, 6, 13, 100):
        for query, hits in zip(queries, index.search(queries, k), strict=True):
            scores = kept @ query
            # float32 sums differ in the last place from a matrix product; the order of distinct scores does not
            want = sorted(range(40), key=lambda i: (-round(scores[i], 6), i))[:k]
            assert [hit.id for hit in hits] == want
            assert [hit.score for hit in hits] == pytest.approx([scores[i] for i in want], abs=1e-6)


def test_equal_scores_stay_in_the_order_of_the_rows(tmp_path: Path) -> None:
    """Products that are exact in any order of summing, of which many are equal, over more than a block."""
    random = np.random.default_rng(0)
    rows = np.zeros((40_000, 8), np.float32)
    rows[np.arange(len(rows)), random.integers(0, 8, len(rows))] = 1
    write_index(tmp_path / "x.vtri", table(rows))
    query = np.array([[8, 4, 4, 2, 1, 1, 0, 0]], np.float32) / 16
    for k in (1, 10, 20_000):
        [(scores, found)] = Index(tmp_path / "x.vtri").search_rows(query, k)
        want = np.argsort(-(rows @ query[0]), kind="stable")[:k]
        assert np.array_equal(found, want)
        assert np.array_equal(scores, (rows @ query[0])[want])


def test_every_finite_half_is_the_float_that_numpy_makes_of_it() -> None:
    halves = np.arange(65536, dtype=np.uint16).view(np.float16)
    halves = halves[np.isfinite(halves)]
    found = float32_of_half(halves)
    assert found.dtype == np.float32
    assert np.array_equal(found.view(np.int32), halves.astype(np.float32).view(np.int32))  # the sign of zero too


def test_an_empty_index_finds_nothing(tmp_path: Path) -> None:
    write_index(tmp_path / "x.vtri", EmbeddingTable(np.zeros((0, 8), np.float32), (), np.zeros((0, 2)), "s"))
    assert Index(tmp_path / "x.vtri").search(unit_rows(2, 8, 0), 5) == [[], []]


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


def test_the_file_is_what_safetensors_reads(tmp_path: Path) -> None:
    import hashlib

    from safetensors import safe_open

    rows, frames = unit_rows(5, 8, 0), unit_rows(15, 8, 1).reshape(5, 3, 8).astype(np.float16)
    write_index(tmp_path / "x.vtri", table(rows, frame_vectors=frames))
    with safe_open(tmp_path / "x.vtri", framework="numpy") as file:
        found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    wanted = {"schema": "1", "space": "s", "metric": "cosine", "count": "5", "kind": "video", "next_id": "5"}
    assert metadata == wanted
    assert np.array_equal(found["embeddings"], rows)
    assert np.array_equal(found["frame_embeddings"], frames)
    assert found["ids"].tolist() == [0, 1, 2, 3, 4]
    assert found["paths"].tobytes() == b"0.mp41.mp42.mp43.mp44.mp4"
    assert found["offsets"].tolist() == [0, 5, 10, 15, 20, 25]
    assert found["sizes"].tolist() == found["mtimes"].tolist() == [-1] * 5
    assert found["digest"].tobytes() == hashlib.sha256(found["ids"].tobytes() + rows.tobytes()).digest()


def test_an_index_of_the_first_release_opens(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    rows = unit_rows(2, 8, 0)
    tensors = {
        "embeddings": rows,
        "ids": np.arange(2),
        "paths": np.frombuffer(b"ab", np.uint8),
        "offsets": np.array([0, 1, 2]),
        "spans": np.full((2, 2), np.nan),
    }
    save_file(tensors, tmp_path / "x.vtri", {"schema": "1", "space": "s", "metric": "cosine", "count": "2"})
    index = Index(tmp_path / "x.vtri")
    assert [hit.path for hit in index.search(rows[1:], 1)[0]] == [Path("b")]
    assert (index.kind, index.frames, index.digest, index.next_id, index.files()) == ("video", None, None, 2, {})
    write_index(tmp_path / "y.vtri", index)
    assert Index(tmp_path / "y.vtri").digest is not None


@pytest.mark.parametrize(("value", "shown"), [(np.nan, "nan"), (np.inf, "inf"), (0.5, r"0\.\d+"), (0.0, "0")])
def test_what_is_no_unit_vector_is_named(tmp_path: Path, value: float, shown: str) -> None:
    rows = unit_rows(4, 8, 0)
    rows[2] *= value
    with pytest.raises(DataError, match=rf"rows: row 2, '2\.mp4', has length {shown} where an embedding has 1"):
        write_index(tmp_path / "x.vtri", table(rows))


def test_queries_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    write_index(tmp_path / "x.vtri", table(unit_rows(2, 8, 0)))
    with pytest.raises(DataError, match="no finite number"):
        Index(tmp_path / "x.vtri").search(np.full((1, 8), np.nan, np.float32), 1)


def test_an_index_without_frames_says_what_to_do(tmp_path: Path) -> None:
    write_index(tmp_path / "x.vtri", table(unit_rows(2, 8, 0)))
    with pytest.raises(UsageError, match="keeps no frames' embeddings"):
        Index(tmp_path / "x.vtri").frames_of(np.array([0]))


def test_an_index_of_a_type_that_is_none_of_ours_is_named(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"embeddings": np.zeros((1, 2), np.int8)}, tmp_path / "x.vtri", {"schema": "1"})
    with pytest.raises(DataError, match="embeddings is of type I8"):
        Index(tmp_path / "x.vtri")


@pytest.mark.parametrize(
    "changed",
    [
        {"sizes": np.zeros(3, np.int64)},
        {"ids": np.array([1, 0])},
        {"ids": np.zeros(2, np.float64)},
        {"embeddings": np.zeros((2, 8), np.int64)},
        {"frame_embeddings": np.zeros((2, 3, 7), np.float16)},
        {"frame_embeddings": np.zeros((2, 3, 8), np.float32)},
        {"spans": np.zeros((2, 1))},
        {"kind": "picture"},
    ],
)
def test_a_hostile_index_is_refused(tmp_path: Path, changed: dict[str, object]) -> None:
    from safetensors.numpy import load_file, save_file

    write_index(tmp_path / "x.vtri", table(unit_rows(2, 8, 0)))
    metadata = {"schema": "1", "space": "s", "metric": "cosine", "kind": str(changed.get("kind", "video"))}
    arrays = {name: value for name, value in changed.items() if isinstance(value, np.ndarray)}
    save_file({**load_file(tmp_path / "x.vtri"), **arrays}, tmp_path / "y.vtri", metadata)
    with pytest.raises(DataError, match=r"do not fit together|is not a \.vtri index"):
        Index(tmp_path / "y.vtri")


def test_a_stream_that_is_too_short_is_no_file(tmp_path: Path) -> None:
    stream = TensorStream("x", np.float32, [3], [np.zeros(2)])
    with pytest.raises(ValueError, match="x got 8 bytes and takes 12"):
        stream_tensors(tmp_path / "x", [stream], {})


def test_a_parquet_file_without_embeddings_is_named(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"a": [1]}), tmp_path / "x.parquet")
    with pytest.raises(DataError, match="holds no embeddings"):
        read_embeddings(tmp_path / "x.parquet")
    (tmp_path / "y.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        read_embeddings(tmp_path / "y.parquet")
