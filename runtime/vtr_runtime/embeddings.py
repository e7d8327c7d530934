"""Embeddings in Parquet, the format for exchange: one row a clip, the bad ones too, and the space in the metadata."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from .errors import DataError
from .model import EmbeddedClip

MAX_ROW_GROUP = 8192


@dataclass(frozen=True)
class EmbeddingTable:
    """The rows that carry an embedding: vectors float32 [N, D], spans float64 [N, 2] (NaN: the file's own)."""

    vectors: NDArray[np.float32]
    paths: tuple[bytes, ...]
    spans: NDArray[np.float64]
    space: str


def schema(dim: int, space: str, variant: str) -> pa.Schema:
    columns = [
        ("path", pa.string()),
        ("path_bytes", pa.binary()),
        ("start", pa.float64()),
        ("end", pa.float64()),
        ("times", pa.list_(pa.float64())),
        ("status", pa.string()),
        ("error", pa.string()),
        ("embedding", pa.list_(pa.float32(), dim)),
    ]
    return pa.schema(columns, metadata={"space": space, "variant": variant})


def write_embeddings(path: Path, rows: Iterable[EmbeddedClip], *, dim: int, space: str, variant: str) -> None:
    """Write rows as they come, at most 8,192 in memory."""
    layout = schema(dim, space, variant)
    waiting = iter(rows)
    with pq.ParquetWriter(path, layout, compression="zstd") as writer:
        while group := list(islice(waiting, MAX_ROW_GROUP)):
            writer.write_table(pa.Table.from_pylist([_row(item) for item in group], schema=layout))


def _row(item: EmbeddedClip) -> dict[str, Any]:
    raw = os.fsencode(item.clip.path)
    return {
        "path": raw.decode("utf-8", "replace"),
        "path_bytes": raw,
        "start": item.clip.start,
        "end": item.clip.end,
        "times": item.times.tolist(),
        "status": item.status,
        "error": item.message or None,
        "embedding": None if item.embedding is None else item.embedding.tolist(),
    }


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
