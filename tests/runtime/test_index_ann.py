"""The approximate index against the exact one: what it finds, and when it is refused."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from vtr_runtime.errors import BackendError, DataError
from vtr_runtime.index import Index, plan_update, write_index, write_update
from vtr_runtime.index.approximate import AnnSettings, ann_path, build_ann, fits, measure_recall, near_rows
from vtr_runtime.rows import EmbeddingTable

pytest.importorskip("usearch")
COUNT, DIM = 3000, 32


def clustered(count: int, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(30, DIM))
    rows = centres[random.integers(0, 30, count)] + random.normal(size=(count, DIM)) * 0.6
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def table(rows: np.ndarray) -> EmbeddingTable:
    names = tuple(f"{i}.mp4".encode() for i in range(len(rows)))
    return EmbeddingTable(rows, names, np.full((len(rows), 2), np.nan), "s")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index whose ids are not its row numbers, and its graph."""
    path = tmp_path_factory.mktemp("ann") / "x.vtri"
    write_index(path, table(clustered(COUNT + 500, 0)))
    write_update(path.with_name("y.vtri"), plan_update([Index(path)], delete=[f"{i}.mp4".encode() for i in range(500)]))
    path.with_name("y.vtri").replace(path)
    build_ann(Index(path), ann_path(path), AnnSettings())
    return path


def test_it_finds_nearly_what_the_exact_search_finds(made: Path) -> None:
    queries = clustered(50, 1)
    exact, near = Index(made).search(queries, 10), Index(made, ann=True).search(queries, 10)
    assert Index(made).ids[0] == 500
    shared = [len({hit.id for hit in one} & {hit.id for hit in other}) / 10 for one, other in zip(exact, near)]  # noqa: B905
    assert np.mean(shared) > 0.98
    scores = {(number, hit.id): hit.score for number, hits in enumerate(exact) for hit in hits}
    for number, hits in enumerate(near):
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
        for hit in hits:
            assert scores.get((number, hit.id), hit.score) == hit.score  # the very number, not the graph's float16


def test_recall_is_the_share_of_the_exact_ten(made: Path) -> None:
    index, opened = Index(made), Index(made, ann=True)
    queries = near_rows(index, 40, 0.8)
    assert np.abs(np.linalg.norm(queries, axis=1) - 1).max() < 1e-5
    first, last = index.vectors[0], index.vectors[-1]
    assert queries[0] @ first == pytest.approx(0.8, abs=1e-5)
    assert queries[-1] @ last == pytest.approx(0.8, abs=1e-5)
    exact = [np.argsort(-(index.vectors @ query), kind="stable")[:10] for query in queries]
    found = [rows for _, rows in opened.search_rows(queries, 10)]
    want = np.mean([len(set(one) & set(other)) / 10 for one, other in zip(exact, found, strict=True)])
    assert measure_recall(index, opened, queries) == pytest.approx(want)
    assert measure_recall(index, index, queries) == 1


def test_a_graph_that_looks_at_less_finds_less(made: Path, tmp_path: Path) -> None:
    """So that a recall of 1 above says something, and the settings do what they say."""
    path = tmp_path / "x.vtri"
    path.write_bytes(made.read_bytes())
    build_ann(Index(path), ann_path(path), AnnSettings(connectivity=4, expansion_add=8, expansion_search=1))
    queries = near_rows(Index(path), 40, 0.8)
    least = measure_recall(Index(path), Index(path, ann=True), queries)
    assert least < 0.9
    assert measure_recall(Index(path), Index(path, ann=True, expansion=400), queries) > least + 0.1
    assert ann_path(path).stat().st_size < ann_path(made).stat().st_size


def test_moments_and_more_than_the_graph_looks_at(made: Path) -> None:
    queries = clustered(2, 2)
    assert [len(hits) for hits in Index(made, ann=True).search(queries, 300)] == [300, 300]
    files = Index(made, ann=True).search_files(queries, 5, 2)
    assert [hits[0].id for hits in files[0]] == [hit.id for hit in Index(made).search(queries, 5)[0]]
    assert Index(made, ann=True).search(np.zeros((0, DIM), np.float32), 5) == []


@pytest.mark.parametrize("ann", [False, True])
def test_threads_share_an_index(made: Path, ann: bool) -> None:
    from concurrent.futures import ThreadPoolExecutor

    index, queries = Index(made, ann=ann), clustered(64, 5)
    alone = [index.search(query[None], 10) for query in queries]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda query: index.search(query[None], 10), [*queries, *queries])) == alone * 2


def test_a_graph_of_other_rows_is_refused(made: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.vtri"
    write_index(path, table(clustered(20, 3)))
    assert fits(Index(path)) is None
    with pytest.raises(DataError, match=r"x\.vtri\.usearch does not exist; make it with: vtr-runtime index"):
        Index(path, ann=True)
    ann_path(path).write_bytes(ann_path(made).read_bytes())
    assert fits(Index(path)) is False
    with pytest.raises(DataError, match=r"was made of other rows than .*x\.vtri holds"):
        Index(path, ann=True)
    assert fits(Index(made)) is True


@pytest.mark.parametrize(
    "content", [b"", b"short", b"x" * 40, b"\xff\xff\x00\x00VTRIANN1", b"{]\2\0\0\0VTRIANN1", b"{}\2\0\0\0VTRIANN1"]
)
def test_what_is_no_graph_is_named(made: Path, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.vtri"
    path.write_bytes(made.read_bytes())
    ann_path(path).write_bytes(content)
    with pytest.raises(DataError, match="is not the graph of an index"):
        Index(path, ann=True)


def test_a_damaged_graph_is_named(made: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.vtri"
    path.write_bytes(made.read_bytes())
    whole = ann_path(made).read_bytes()
    ann_path(path).write_bytes(whole[:100] + whole[-300:])
    with pytest.raises(DataError, match="cannot be opened"):
        Index(path, ann=True)


def test_an_index_without_a_digest_gets_no_graph(tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    write_index(tmp_path / "x.vtri", table(clustered(5, 0)))
    tensors = load_file(tmp_path / "x.vtri")
    del tensors["digest"]
    save_file(tensors, tmp_path / "x.vtri", {"schema": "1", "space": "s", "metric": "cosine", "count": "5"})
    with pytest.raises(DataError, match="is of an earlier vtr-runtime"):
        build_ann(Index(tmp_path / "x.vtri"), tmp_path / "y", AnnSettings())


def test_an_empty_index_has_an_empty_graph(tmp_path: Path) -> None:
    path = tmp_path / "x.vtri"
    write_index(path, table(np.zeros((0, DIM), np.float32)))
    build_ann(Index(path), ann_path(path), AnnSettings())
    assert Index(path, ann=True).search(clustered(2, 0), 5) == [[], []]
    assert measure_recall(Index(path), Index(path, ann=True), near_rows(Index(path), 10, 0.8)) == 1


def test_without_usearch_it_says_what_to_install(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "usearch.index", None)
    with pytest.raises(BackendError, match=r"pip install 'vtr-runtime\[ann\]'"):
        Index(made, ann=True)
