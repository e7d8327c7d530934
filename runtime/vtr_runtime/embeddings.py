"""Embeddings in Parquet, the format for exchange: one row a clip, the bad ones too, and the space in the metadata."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from .clips import EmbeddedClip
from .errors import DataError
from .manifest import Manifest

MAX_ROW_GROUP = 8192


@dataclass(frozen=True)
class EmbeddingTable:
    """The rows that carry an embedding: vectors float32 [N, D], spans float64 [N, 2] (NaN: the file's own)."""

    vectors: NDArray[np.float32]
    paths: tuple[bytes, ...]
    spans: NDArray[np.float64]
    space: str


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


def read_embeddings(path: Path) -> EmbeddingTable:
    """Read the embedded rows. DataError when the file is not one that `vtr-runtime embed` wrote."""
    mend = "make it with: vtr-runtime embed BUNDLE PATH... -o X.parquet"
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} cannot be read as Parquet ({str(error).splitlines()[0]}); {mend}") from error
    metadata = table.schema.metadata or {}
    wanted = {"path_bytes", "start", "end", "status", "embedding"}
    if b"space" not in metadata or not wanted <= set(table.column_names):
        raise DataError(f"{path} is Parquet but holds no embeddings with their space; {mend}")
    kept = table.filter(pa.compute.not_equal(table["status"], "error"))
    column = kept["embedding"].combine_chunks()
    dim = column.type.list_size
    vectors = column.flatten().to_numpy(zero_copy_only=False).reshape(-1, dim).astype(np.float32, copy=False)
    spans = np.stack([kept[name].to_numpy().astype(np.float64) for name in ("start", "end")], axis=1)
    return EmbeddingTable(vectors, tuple(kept["path_bytes"].to_pylist()), spans, metadata[b"space"].decode())
