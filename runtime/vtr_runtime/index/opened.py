"""An opened index."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError

from ..clips import Clip, FileStamp
from ..errors import DataError, SpaceError, UsageError
from ..rows import UNKNOWN, Kind, RowTable
from ..tensor_file import map_tensors
from .approximate import Ann
from .exact import BLOCK_ROWS, exact_top, float32_of_half, order_rows

SCHEMA = "1"
METRIC = "cosine"


@dataclass(frozen=True)
class Hit:
    """One result: `score` is the cosine with the query, or after a second stage the sum with its score.

    In an index of sentences `text` is the sentence and `path` is empty; elsewhere `text` is None."""

    id: int
    score: float
    path: Path
    start: float | None
    end: float | None
    text: str | None = None

    @property
    def seconds(self) -> str:
        """Which part of the file, for a person."""
        if self.start is None and self.end is None:
            return "whole"
        return f"{self.start or 0:.1f} - {'end' if self.end is None else f'{self.end:.1f}'}"


class Index:
    """An opened `.vtri` file, and a source of rows for another. Rows are read from disk as a search passes over them.

    Safe to share between threads."""

    failed: Mapping[bytes, str] = {}

    def __init__(self, path: Path, *, ann: bool = False, expansion: int | None = None) -> None:
        """`ann`: search the graph that `vtr-runtime index --ann` wrote beside it, looking at `expansion` candidates
        (default: as many as its recall was measured with). DataError for a damaged or foreign file, or for a graph of
        other rows; BackendError when USearch is not installed."""
        self.path = Path(path)
        mend = "make it with: vtr-runtime index BUNDLE X.parquet -o X.vtri"
        if not self.path.is_file():
            raise DataError(f"{path} does not exist; {mend}")
        try:
            tensors, metadata = map_tensors(self.path)
            if metadata.get("schema") != SCHEMA or metadata.get("metric") != METRIC:
                raise DataError(f"{path} is not an index of schema {SCHEMA}; {mend}")
            self.space = metadata["space"]
            self.vectors: NDArray[np.floating] = tensors["embeddings"]
            self.count, self.dim = self.vectors.shape
            self.ids: NDArray[np.int64] = tensors["ids"]
            self._paths: NDArray[np.uint8] = tensors["paths"]
            self._offsets: NDArray[np.int64] = tensors["offsets"]
            self._spans: NDArray[np.float64] = tensors["spans"]
            self.kind = cast(Kind, metadata.get("kind", "video"))
            self.next_id = int(metadata.get("next_id", self.ids.max(initial=-1) + 1))
            unknown = np.full(self.count, UNKNOWN, np.int64)
            self._stamps = np.stack([tensors.get(name, unknown) for name in ("sizes", "mtimes")], axis=1)
        except (SafetensorError, KeyError, ValueError, OSError) as error:
            raise DataError(f"{path} is not a .vtri index ({error}); {mend}") from error
        self._frames: NDArray[np.float16] | None = tensors.get("frame_embeddings")
        self.digest = tensors["digest"].tobytes() if "digest" in tensors else None
        self._check(mend)
        self._ann = Ann.open(self, expansion) if ann else None

    def _check(self, mend: str) -> None:
        ends = self._offsets
        sound = (
            self.kind in get_args(Kind)
            and [part.dtype for part in (self.ids, self._offsets, self._stamps)] == [np.int64] * 3
            and [self._paths.dtype, self._spans.dtype] == [np.uint8, np.float64]
            and self.vectors.dtype in (np.float32, np.float16)
            and self.ids.shape == (self.count,)
            and bool((np.diff(self.ids) > 0).all())
            and self._spans.shape == (self.count, 2)
            and self._stamps.shape == (self.count, 2)
            and (self._frames is None or self._frames.dtype == np.float16)
            and (self._frames is None or (self._frames.ndim == 3 and self._frames.shape[::2] == self.vectors.shape))
            and ends.shape == (self.count + 1,)
            and int(ends[0]) == 0
            and int(ends[-1]) == self._paths.size
            and bool((np.diff(ends) >= 0).all())
        )
        if not sound:
            raise DataError(f"{self.path}: its tables do not fit together; {mend}")

    def search(self, queries: NDArray[np.float32], k: int) -> list[list[Hit]]:
        """The k best rows for each query float32 [Q, D], best first; equal scores in the order of the rows."""
        return [self.hits(rows, scores) for scores, rows in self.search_rows(queries, k)]

    def search_rows(self, queries: NDArray[np.float32], k: int) -> list[tuple[NDArray[np.float32], NDArray[np.int64]]]:
        """For each query float32 [Q, D] the scores and the numbers of its k best rows, as `search`."""
        if queries.ndim != 2 or queries.shape[1] != self.dim:
            raise SpaceError(f"queries are {list(queries.shape)} and {self.path} holds vectors of length {self.dim}")
        if not np.isfinite(queries).all():
            raise DataError(f"queries for {self.path} hold what is no finite number; embed them again")
        if self._ann is None:
            return exact_top(self.vectors, queries, k)
        found = [np.searchsorted(self.ids, ids) for ids in self._ann.candidates(queries, k)]
        return [order_rows(self.vectors, query, rows, k) for query, rows in zip(queries, found, strict=True)]

    def search_files(
        self, queries: NDArray[np.float32], k: int, moments: int, *, overlapping: bool = False
    ) -> list[list[list[Hit]]]:
        """For each query float32 [Q, D] the k files that hold the best rows, best first, each with its best rows: at
        most `moments`, of which none overlaps a better one in time unless `overlapping`."""
        if self.kind == "text":
            raise UsageError(f"{self.path} holds sentences, which have no moments; search it without --moments")
        best = self.search(queries, k * moments)
        return [self._files_of(query, hits, k, moments, overlapping) for query, hits in zip(queries, best, strict=True)]

    def _files_of(
        self, query: NDArray[np.float32], best: list[Hit], k: int, moments: int, overlapping: bool
    ) -> list[list[Hit]]:
        """`best` are the query's best rows; where they lie in too few files, more are asked for."""
        files = dict.fromkeys(hit.path for hit in best)
        asked = k * moments
        while len(files) < k and asked < self.count:
            asked *= 4
            [best] = self.search(query[None], asked)
            files = dict.fromkeys(hit.path for hit in best)
        found = []
        for path in list(files)[:k]:
            rows = np.array(self._rows_by_path[os.fsencode(path)], np.int64)
            scores, rows = order_rows(self.vectors, query, rows, len(rows))
            found += group_by_file(self.hits(rows, scores), 1, moments, overlapping=overlapping)
        return found

    def clip(self, row_id: int) -> Clip | None:
        """The clip that a hit of this id shows; None where no row has it, or the rows are sentences."""
        row = int(np.searchsorted(self.ids, row_id))
        if self.kind == "text" or row == self.count or self.ids[row] != row_id:
            return None
        hit = self._hit(row, 0.0)
        return Clip(hit.path, hit.start, hit.end)

    def hits(self, rows: NDArray[np.int64], scores: NDArray[np.floating]) -> list[Hit]:
        """Results of row numbers and their scores."""
        return [self._hit(row, score) for row, score in zip(rows.tolist(), scores.tolist(), strict=True)]

    def _hit(self, row: int, score: float) -> Hit:
        raw, key = self._path(row), int(self.ids[row])
        if self.kind == "text":
            return Hit(key, score, Path(), None, None, raw.decode("utf-8", "replace"))
        start, end = (None if np.isnan(value) else float(value) for value in self._spans[row])
        return Hit(key, score, Path(os.fsdecode(raw)), start, end)

    def frames_of(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """The frames' embeddings of some rows: float32 [n, T, D], zero where masked. UsageError where none are kept."""
        if self._frames is None:
            raise UsageError(
                f"{self.path} keeps no frames' embeddings, which a second stage reads; embed the videos again with a "
                "bundle that was exported with --rerank, and index them without --no-frames"
            )
        return float32_of_half(self._frames[rows])

    def files(self) -> Mapping[bytes, FileStamp]:
        """The files of the rows, as size and time were when they were embedded; those of unknown ones are left out."""
        if self.kind == "text":
            return {}
        known = np.flatnonzero((self._stamps != UNKNOWN).all(axis=1))
        stamps = self._stamps[known].tolist()
        return {self._path(row): FileStamp(*stamp) for row, stamp in zip(known.tolist(), stamps, strict=True)}

    def _path(self, row: int) -> bytes:
        return self._paths[self._offsets[row] : self._offsets[row + 1]].tobytes()

    @cached_property
    def _rows_by_path(self) -> dict[bytes, list[int]]:
        found: dict[bytes, list[int]] = {}
        for row, path in enumerate(self.table.paths):
            found.setdefault(path, []).append(row)
        return found

    # What makes it a source of rows for another index, see rows.py.

    @property
    def name(self) -> str:
        return str(self.path)

    @property
    def half(self) -> bool:
        return bool(self.vectors.dtype == np.float16)

    @property
    def frames(self) -> int | None:
        return None if self._frames is None else self._frames.shape[1]

    @cached_property
    def table(self) -> RowTable:
        raw, ends = self._paths.tobytes(), self._offsets.tolist()
        paths = [raw[start:end] for start, end in pairwise(ends)]
        return RowTable(paths, self._spans, self._stamps)

    def vector_blocks(self) -> Iterator[NDArray[np.float32]]:
        for block in _blocks(self.vectors):
            yield block.astype(np.float32, copy=False)

    def frame_blocks(self) -> Iterator[NDArray[np.float16]]:
        if self._frames is not None:
            yield from _blocks(self._frames)


def group_by_file(hits: Sequence[Hit], k: int, moments: int, *, overlapping: bool = False) -> list[list[Hit]]:
    """The first k files of hits that are in order, each with its first hits: at most `moments`, of which none overlaps
    an earlier one in time unless `overlapping`."""
    files: dict[Path, list[Hit]] = {}
    for hit in hits:
        if hit.path not in files and len(files) == k:
            continue
        chosen = files.setdefault(hit.path, [])
        if len(chosen) < moments and (overlapping or not any(_overlap(hit, other) for other in chosen)):
            chosen.append(hit)
    return list(files.values())


def _overlap(one: Hit, other: Hit) -> bool:
    """Parts that only touch do not overlap; an open end is the file's own."""
    (a, b), (c, d) = ((hit.start or 0.0, float("inf") if hit.end is None else hit.end) for hit in (one, other))
    return max(a, c) < min(b, d)


def check_space(index: Index, space: str) -> None:
    """Refuse to search an index with another model's sentences."""
    if index.space != space:
        raise SpaceError(
            f"{index.path} was made with another model (space {index.space[:12]}, the bundle's is {space[:12]}); "
            "search it with its own bundle, or embed and index the videos again with this one"
        )


def _blocks(rows: NDArray[Any]) -> Iterator[NDArray[Any]]:
    return (rows[start : start + BLOCK_ROWS] for start in range(0, len(rows), BLOCK_ROWS))
