"""The approximate index: an HNSW graph that USearch writes beside the `.vtri` file.

`X.vtri.usearch` is USearch's own file, whose keys are the rows' ids, with a few bytes behind it, which USearch passes
over: JSON that says whose rows it holds, the length of that JSON as four bytes, little-endian, and `VTRIANN1`."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import BackendError, DataError
from .exact import exact_top

if TYPE_CHECKING:
    from .opened import Index

MAGIC = b"VTRIANN1"
MAX_RECORD = 4096
RECALL_AT = 10


@dataclass(frozen=True)
class AnnSettings:
    """How the graph is built and searched: more is slower and finds more (benchmarks/search)."""

    connectivity: int = 16  # neighbours of a node
    expansion_add: int = 128  # candidates looked at for a new node's neighbours
    expansion_search: int = 256  # candidates looked at for a query; sentences need more than videos
    storage: Literal["f32", "f16"] = "f16"  # of the graph's own copy of the vectors


@dataclass(frozen=True)
class AnnReport:
    """What a graph cost and what it finds: `recall` is the share of the exact ten best, over `queries` queries:
    `queries_are` "sentences", or "near rows", rows that were turned away."""

    path: Path
    seconds: float
    megabytes: float
    recall: float
    queries: int
    queries_are: str


class Ann:
    """An opened graph. Safe to share between threads."""

    def __init__(self, graph: Any, expansion: int) -> None:
        self._graph, self._expansion = graph, expansion

    @classmethod
    def open(cls, index: Index, expansion: int | None = None) -> Ann:
        """The graph beside an index. DataError where it is absent, damaged or of other rows; BackendError without
        USearch."""
        path = ann_path(index.path)
        again = f"make it with: vtr-runtime index BUNDLE {index.path} -o {index.path} --overwrite --ann"
        library = import_usearch()
        if not path.is_file():
            raise DataError(f"{path} does not exist; {again}")
        record = _read_record(path)
        if record is None:
            raise DataError(f"{path} is not the graph of an index; {again}")
        if index.digest is None or record["digest"] != index.digest.hex():
            raise DataError(f"{path} was made of other rows than {index.path} holds; {again}")
        wanted = expansion or record["expansion_search"]
        graph = _new_graph(library, index.dim, AnnSettings(expansion_search=wanted, storage=record["storage"]))
        try:
            graph.view(str(path))
        except Exception as error:  # USearch raises nothing narrower
            raise DataError(f"{path} cannot be opened ({error}); {again}") from error
        return cls(graph, wanted)

    def candidates(self, queries: NDArray[np.float32], k: int) -> list[NDArray[np.int64]]:
        """For each query float32 [Q, D] the ids of all rows that the graph's search ended with, k at least where there
        are as many: their exact scores are the caller's to compute and to order."""
        if not len(queries):
            return []
        found = self._graph.search(queries, max(k, self._expansion))
        keys, counts = np.atleast_2d(found.keys), np.atleast_1d(getattr(found, "counts", len(found.keys)))
        return [row[:count].astype(np.int64) for row, count in zip(keys, counts.tolist(), strict=True)]


def ann_path(index: Path) -> Path:
    return index.with_name(f"{index.name}.usearch")


def fits(index: Index) -> bool | None:
    """Whether the graph beside an index is of its rows; None where there is none."""
    path = ann_path(index.path)
    if not path.is_file():
        return None
    record = _read_record(path)
    return record is not None and index.digest is not None and record["digest"] == index.digest.hex()


def import_usearch() -> Any:
    """The module; BackendError with what to install."""
    try:
        import usearch.index
    except ImportError as error:
        raise BackendError(
            f"approximate search needs USearch, which is not here ({error}); pip install 'vtr-runtime[ann]'"
        ) from error
    return usearch.index


def build_ann(
    index: Index, path: Path, settings: AnnSettings, *, advance: Callable[[int], None] = lambda _: None
) -> float:
    """Write the graph of an index's rows to `path`; `advance` is told of rows done. Returns the seconds it took.

    All cores are used; the order in which they come makes each build a little different."""
    library = import_usearch()
    if index.digest is None:
        raise DataError(f"{index.path} is of an earlier vtr-runtime; make it again from its Parquet files")
    start = time.perf_counter()
    graph = _new_graph(library, index.dim, settings)
    row = 0
    for block in index.vector_blocks():
        graph.add(index.ids[row : row + len(block)].astype(np.uint64), np.ascontiguousarray(block))
        row += len(block)
        advance(len(block))
    graph.save(str(path))
    known = {"digest": index.digest.hex(), "expansion_search": settings.expansion_search, "storage": settings.storage}
    record = json.dumps(known).encode()
    with path.open("ab") as file:
        file.write(record + len(record).to_bytes(4, "little") + MAGIC)
    return time.perf_counter() - start


def measure_recall(index: Index, opened: Index, queries: NDArray[np.float32]) -> float:
    """The share of the ten best rows of each query that `opened`, the same index with its graph, finds too."""
    exact = exact_top(index.vectors, queries, RECALL_AT)
    found = opened.search_rows(queries, RECALL_AT)
    shared = [np.isin(want, got).mean() for (_, want), (_, got) in zip(exact, found, strict=True) if len(want)]
    return float(np.mean(shared)) if shared else 1.0


def near_rows(index: Index, count: int, cosine: float) -> NDArray[np.float32]:
    """Queries float32 [count, D] that no row equals: rows spread over the index, turned away to that cosine."""
    random = np.random.default_rng(0)
    rows = index.vectors[np.linspace(0, index.count - 1, min(count, index.count)).astype(np.int64)].astype(np.float32)
    away = random.normal(size=rows.shape).astype(np.float32)
    away -= (away * rows).sum(axis=1, keepdims=True) * rows
    away /= np.linalg.norm(away, axis=1, keepdims=True)
    return cosine * rows + np.float32(np.sqrt(1 - cosine**2)) * away


def _new_graph(library: Any, dim: int, settings: AnnSettings) -> Any:
    return library.Index(
        ndim=dim,
        metric="ip",
        dtype=settings.storage,
        connectivity=settings.connectivity,
        expansion_add=settings.expansion_add,
        expansion_search=settings.expansion_search,
        enable_key_lookups=False,
    )


def _read_record(path: Path) -> dict[str, Any] | None:
    """What lies behind USearch's bytes; None where nothing of the kind does."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - 12))
        tail = file.read(12)
        length = int.from_bytes(tail[:4], "little")
        if tail[4:] != MAGIC or not 0 < length <= min(MAX_RECORD, size - 12):
            return None
        file.seek(size - 12 - length)
        try:
            record = json.loads(file.read(length))
        except ValueError:
            return None
    kinds = {"digest": str, "expansion_search": int, "storage": str}
    sound = isinstance(record, dict) and all(isinstance(record.get(name), kind) for name, kind in kinds.items())
    return record if sound else None
