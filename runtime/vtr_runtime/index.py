"""The searchable index: one safetensors file `.vtri`, read block by block, searched exactly.

    embeddings float32 [N, D] | ids int64 [N] | paths uint8 [bytes] with offsets int64 [N + 1] | spans float64 [N, 2]

`spans` holds start and end in seconds (NaN: the file's own). The metadata carries schema, space, metric and count."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from .clips import Clip
from .embeddings import EmbeddingTable, read_embeddings
from .errors import DataError, SpaceError
from .tensor_file import save_tensors

SCHEMA = "1"
METRIC = "cosine"
BLOCK_ROWS = 65536


@dataclass(frozen=True)
class Hit:
    """One result: `score` is the cosine with the query."""

    id: int
    score: float
    path: Path
    start: float | None
    end: float | None


class Index:
    """An opened `.vtri` file. Rows are read from disk as a search passes over them."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        mend = "make it with: vtr-runtime index BUNDLE X.parquet -o X.vtri"
        if not self.path.is_file():
            raise DataError(f"{path} does not exist; {mend}")
        try:
            self._file = safe_open(self.path, framework="numpy")
            metadata = self._file.metadata() or {}
            if metadata.get("schema") != SCHEMA or metadata.get("metric") != METRIC:
                raise DataError(f"{path} is not an index of schema {SCHEMA}; {mend}")
            self.space = metadata["space"]
            self._rows = self._file.get_slice("embeddings")
            self.count, self.dim = self._rows.get_shape()
            self._ids: NDArray[np.int64] = self._file.get_tensor("ids")
            self._paths: NDArray[np.uint8] = self._file.get_tensor("paths")
            self._offsets: NDArray[np.int64] = self._file.get_tensor("offsets")
            self._spans: NDArray[np.float64] = self._file.get_tensor("spans")
        except (SafetensorError, KeyError, OSError) as error:
            raise DataError(f"{path} is not a .vtri index ({error}); {mend}") from error
        self._by_path: dict[bytes, list[int]] | None = None  # made when it is first asked for
        self._check(mend)

    def _check(self, mend: str) -> None:
        ends = self._offsets
        sound = (
            self._ids.shape == (self.count,)
            and self._spans.shape == (self.count, 2)
            and ends.shape == (self.count + 1,)
            and int(ends[0]) == 0
            and int(ends[-1]) == self._paths.size
            and bool((np.diff(ends) >= 0).all())
        )
        if not sound:
            raise DataError(f"{self.path}: its tables do not fit together; {mend}")

    def search(self, queries: NDArray[np.float32], k: int) -> list[list[Hit]]:
        """The k best rows for each query float32 [Q, D], best first; equal scores in the order of the rows."""
        if queries.ndim != 2 or queries.shape[1] != self.dim:
            raise SpaceError(f"queries are {list(queries.shape)} and {self.path} holds vectors of length {self.dim}")
        best_scores = np.zeros((len(queries), 0), np.float32)
        best_rows = np.zeros((len(queries), 0), np.int64)
        for start in range(0, self.count, BLOCK_ROWS):
            block = self._rows[start : min(start + BLOCK_ROWS, self.count)]
            rows = np.broadcast_to(np.arange(start, start + len(block)), (len(queries), len(block)))
            scores = np.concatenate([best_scores, queries @ block.T], axis=1)
            rows = np.concatenate([best_rows, rows], axis=1)
            order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
            best_scores = np.take_along_axis(scores, order, axis=1)
            best_rows = np.take_along_axis(rows, order, axis=1)
        return [
            [self._hit(int(row), float(score)) for row, score in zip(rows, scores, strict=True)]
            for rows, scores in zip(best_rows, best_scores, strict=True)
        ]

    def clip(self, row_id: int) -> Clip | None:
        """The clip that a hit of this id shows; None where no row has it."""
        rows = np.flatnonzero(self._ids == row_id)
        if not len(rows):
            return None
        hit = self._hit(int(rows[0]), 0.0)
        return Clip(hit.path, hit.start, hit.end)

    def search_files(self, queries: NDArray[np.float32], k: int, moments: int) -> list[list[list[Hit]]]:
        """For each query float32 [Q, D] the k files that hold the best rows, best first, each with its best rows."""
        best = self.search(queries, k * moments)
        return [self._files_of(query, hits, k, moments) for query, hits in zip(queries, best, strict=True)]

    def _files_of(self, query: NDArray[np.float32], best: list[Hit], k: int, moments: int) -> list[list[Hit]]:
        """`best` are the query's best rows; where they lie in too few files, more are asked for."""
        files = dict.fromkeys(hit.path for hit in best)
        while len(files) < k and len(best) < self.count:
            [best] = self.search(query[None], 4 * len(best))
            files = dict.fromkeys(hit.path for hit in best)
        found = []
        for path in list(files)[:k]:
            rows = self._rows_of(path)
            scores = np.array([float(query @ self._rows[row : row + 1][0]) for row in rows], np.float32)
            order = np.argsort(-scores, kind="stable")[:moments]
            found.append([self._hit(rows[place], float(scores[place])) for place in order])
        return found

    def _rows_of(self, path: Path) -> list[int]:
        if self._by_path is None:
            self._by_path = {}
            for row in range(self.count):
                raw = self._paths[self._offsets[row] : self._offsets[row + 1]].tobytes()
                self._by_path.setdefault(raw, []).append(row)
        return self._by_path[os.fsencode(path)]

    def _hit(self, row: int, score: float) -> Hit:
        raw = self._paths[self._offsets[row] : self._offsets[row + 1]].tobytes()
        start, end = (None if np.isnan(value) else float(value) for value in self._spans[row])
        return Hit(int(self._ids[row]), score, Path(os.fsdecode(raw)), start, end)


def merge_tables(paths: Sequence[Path], space: str) -> EmbeddingTable:
    """Read Parquet files of one space, in the order given. SpaceError when one is of another model."""
    tables = [read_embeddings(path) for path in paths]
    for path, table in zip(paths, tables, strict=True):
        if table.space != space:
            raise SpaceError(
                f"{path} holds embeddings of another model (space {table.space[:12]}, the bundle's is {space[:12]}); "
                "embed the videos again with this bundle"
            )
    return EmbeddingTable(
        np.concatenate([table.vectors for table in tables]),
        tuple(path for table in tables for path in table.paths),
        np.concatenate([table.spans for table in tables]),
        space,
    )


def write_index(path: Path, table: EmbeddingTable) -> None:
    """Write a `.vtri` file."""
    offsets = np.cumsum([0, *(len(raw) for raw in table.paths)], dtype=np.int64)
    tensors: dict[str, NDArray[Any]] = {
        "embeddings": np.ascontiguousarray(table.vectors),
        "ids": np.arange(len(table.paths), dtype=np.int64),
        "paths": np.frombuffer(b"".join(table.paths), np.uint8),
        "offsets": offsets,
        "spans": table.spans,
    }
    metadata = {"schema": SCHEMA, "space": table.space, "metric": METRIC, "count": str(len(table.paths))}
    save_tensors(path, tensors, metadata)


def check_space(index: Index, space: str) -> None:
    """Refuse to search an index with another model's sentences."""
    if index.space != space:
        raise SpaceError(
            f"{index.path} was made with another model (space {index.space[:12]}, the bundle's is {space[:12]}); "
            "search it with its own bundle, or embed and index the videos again with this one"
        )
