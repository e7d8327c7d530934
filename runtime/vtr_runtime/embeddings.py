"""Embeddings in Parquet, the format for exchange: one row a clip, the bad ones too, and the space in the metadata."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from .clips import EmbeddedClip
from .errors import DataError
from .manifest import Manifest
from .rows import UNKNOWN, EmbeddingTable, Kind, RowTable

MAX_ROW_GROUP = 8192


@dataclass(frozen=True)
class RowLayout:
    """What all rows of a file have in common: D, the model, and T x D where frames' embeddings are kept."""

    dim: int
    space: str
    variant: str
    frames: int | None = None

    @classmethod
    def of(cls, manifest: Manifest) -> RowLayout:
        """Frames' embeddings are kept where the bundle has a second stage, which reads them."""
        frames = None if manifest.rerank is None else manifest.frames.count
        return cls(manifest.dim, manifest.space, manifest.variant, frames)

    @property
    def schema(self) -> pa.Schema:
        columns = [
            ("path", pa.string()),
            ("path_bytes", pa.binary()),
            ("size", pa.int64()),
            ("mtime_ns", pa.int64()),
            ("start", pa.float64()),
            ("end", pa.float64()),
            ("times", pa.list_(pa.float64())),
            ("status", pa.string()),
            ("error", pa.string()),
            ("embedding", pa.list_(pa.float32(), self.dim)),
        ]
        if self.frames is not None:
            columns.append(("frame_embeddings", pa.list_(pa.float16(), self.frames * self.dim)))
        return pa.schema(columns, metadata={"space": self.space, "variant": self.variant})


def write_embeddings(path: Path, rows: Iterable[EmbeddedClip], layout: RowLayout) -> None:
    """Write rows as they come, at most 8,192 in memory."""
    waiting = iter(rows)
    with pq.ParquetWriter(path, layout.schema, compression="zstd") as writer:
        while group := list(islice(waiting, MAX_ROW_GROUP)):
            writer.write_table(as_table(group, layout))


def as_table(items: Sequence[EmbeddedClip], layout: RowLayout) -> pa.Table:
    """One Arrow table of the rows."""
    schema = layout.schema
    raw = [os.fsencode(item.clip.path) for item in items]
    columns: dict[str, pa.Array | list[Any]] = {
        "path": [name.decode("utf-8", "replace") for name in raw],
        "path_bytes": raw,
        "size": [item.stamp and item.stamp.size for item in items],
        "mtime_ns": [item.stamp and item.stamp.mtime_ns for item in items],
        "start": [item.clip.start for item in items],
        "end": [item.clip.end for item in items],
        "times": [item.times.tolist() for item in items],
        "status": [item.status for item in items],
        "error": [item.message or None for item in items],
        "embedding": _vectors([item.embedding for item in items], schema.field("embedding").type),
    }
    if layout.frames is not None:
        kind = schema.field("frame_embeddings").type
        columns["frame_embeddings"] = _vectors([item.frame_embeddings for item in items], kind)
    return pa.table([pa.array(columns[field.name], field.type) for field in schema], schema=schema)


def _vectors(rows: Sequence[NDArray[np.float32] | None], kind: pa.DataType) -> pa.Array:
    """Fixed-size lists of the kind's own type; null where a row is None."""
    there = np.array([row is not None for row in rows])
    values = np.zeros((len(rows), kind.list_size), kind.value_type.to_pandas_dtype())
    for number, row in enumerate(rows):
        if row is not None:
            values[number] = row.reshape(-1)
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), type=kind, mask=pa.array(~there))


class EmbeddingFile:
    """An opened Parquet file of embeddings as a source of rows (see rows.py): those that carry an embedding.

    Opening reads all but the vectors, which then come a row group at a time."""

    kind: Kind = "video"
    half = False
    ids = None
    next_id = 0

    def __init__(self, path: Path) -> None:
        """DataError when the file is not one that `vtr-runtime embed` wrote."""
        self.name = str(path)
        mend = "make it with: vtr-runtime embed BUNDLE PATH... -o X.parquet"
        try:
            self._file = pq.ParquetFile(path)
            found = set(self._file.schema_arrow.names)
            metadata = self._file.schema_arrow.metadata or {}
            if b"space" not in metadata or not found >= _NEEDED:
                raise DataError(f"{path} is Parquet but holds no embeddings with their space; {mend}")
            rows = self._file.read(columns=[name for name in _DESCRIBING if name in found])
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"{path} cannot be read as Parquet ({str(error).splitlines()[0]}); {mend}") from error
        self.space = metadata[b"space"].decode()
        self.dim: int = self._file.schema_arrow.field("embedding").type.list_size
        per_row = self._file.schema_arrow.field("frame_embeddings").type.list_size if _FRAMES in found else None
        self.frames = None if per_row is None else per_row // self.dim
        good = pc.not_equal(rows["status"], "error")
        bad = rows.filter(pc.invert(good))
        reasons = bad["error"].to_pylist() if "error" in found else [None] * len(bad)
        self.failed = {raw: reason or "" for raw, reason in zip(bad["path_bytes"].to_pylist(), reasons, strict=True)}
        self.table = _describe(rows.filter(good))

    def vector_blocks(self) -> Iterator[NDArray[np.float32]]:
        for block in self._blocks("embedding"):
            yield block.astype(np.float32, copy=False)

    def frame_blocks(self) -> Iterator[NDArray[np.float16]]:
        if self.frames is not None:
            for block in self._blocks(_FRAMES):
                yield block.astype(np.float16, copy=False).reshape(len(block), self.frames, self.dim)

    def _blocks(self, column: str) -> Iterator[NDArray[Any]]:
        """Lists of the embedded rows as [n, length]."""
        for number in range(self._file.num_row_groups):
            group = self._file.read_row_group(number, columns=["status", column])
            # Flattening passes null rows over, and the lists that a slice left out.
            lists = group.filter(pc.not_equal(group["status"], "error"))[column].combine_chunks()
            yield lists.flatten().to_numpy(zero_copy_only=False).reshape(-1, lists.type.list_size)


def read_embeddings(path: Path) -> EmbeddingTable:
    """The embedded rows of a file in memory. DataError when the file is not one that `vtr-runtime embed` wrote."""
    file = EmbeddingFile(path)
    vectors = np.concatenate([np.zeros((0, file.dim), np.float32), *file.vector_blocks()])
    frames = np.concatenate(list(file.frame_blocks())) if file.frames is not None and len(vectors) else None
    known = file.table
    return EmbeddingTable(
        vectors, tuple(known.paths), known.spans, file.space, known.stamps, frames, name=file.name, failed=file.failed
    )


_FRAMES = "frame_embeddings"
_NEEDED = {"path_bytes", "start", "end", "status", "embedding"}
_DESCRIBING = ("path_bytes", "start", "end", "status", "error", "size", "mtime_ns")


def _describe(rows: pa.Table) -> RowTable:
    spans = [rows[name].to_numpy().astype(np.float64) for name in ("start", "end")]
    unknown = pa.scalar(UNKNOWN, pa.int64())
    stamps = [
        pc.fill_null(rows[name], unknown).to_numpy() if name in rows.column_names else np.full(len(rows), UNKNOWN)
        for name in ("size", "mtime_ns")
    ]
    return RowTable(rows["path_bytes"].to_pylist(), np.stack(spans, axis=1), np.stack(stamps, axis=1))
