"""Writing an index: a pass over the sources for each of its large tensors, a block in memory at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..rows import RowSource
from ..tensor_file import TensorStream, stream_tensors
from .opened import METRIC, SCHEMA
from .update import Update, plan_update

UNIT_TOLERANCE = 0.01
"""How far from 1 an embedding's length may be: more than bf16 leaves, less than anything that is not normalised."""


def write_index(path: Path, *sources: RowSource) -> None:
    """Write the `.vtri` file of some sources."""
    write_update(path, plan_update(sources))


def write_update(
    path: Path,
    update: Update,
    *,
    half: bool = False,
    frames: bool = True,
    advance: Callable[[int], None] = lambda _: None,
) -> None:
    """Write the `.vtri` file of the rows that stay; `advance` is told of rows done.

    Rows of the first source keep their ids; all others get new ones, above any that was ever given. `half` keeps the
    vectors in float16, `frames` their frames' where the sources have them. DataError for a vector that is not finite or
    not of unit length, and for sources of which only some have frames' embeddings."""
    sources, count, dim = update.sources, update.count, update.sources[0].dim
    paths = [
        path for source, keep in zip(sources, update.keep, strict=True) for path in _kept(source.table.paths, keep)
    ]
    spans, stamps = (
        np.concatenate([getattr(source.table, name)[keep] for source, keep in zip(sources, update.keep, strict=True)])
        for name in ("spans", "stamps")
    )
    ids, next_id = _ids(update)
    digest = hashlib.sha256(ids.tobytes())
    kind = np.dtype(np.float16 if half else np.float32)

    def vectors() -> Iterator[NDArray[Any]]:
        for block in _chosen(update, _checked):
            stored = block.astype(kind, copy=False)
            digest.update(np.ascontiguousarray(stored).data)
            advance(len(stored))
            yield stored

    def fingerprint() -> Iterator[NDArray[np.uint8]]:
        yield np.frombuffer(digest.digest(), np.uint8)  # asked for last, when all vectors have passed

    length = _frame_count(sources) if frames else None
    raw = b"".join(paths)
    streams = [
        TensorStream("ids", np.int64, [count], [ids]),
        TensorStream("offsets", np.int64, [count + 1], [np.cumsum([0, *map(len, paths)], dtype=np.int64)]),
        TensorStream("spans", np.float64, [count, 2], [spans]),
        TensorStream("sizes", np.int64, [count], [stamps[:, 0]]),
        TensorStream("mtimes", np.int64, [count], [stamps[:, 1]]),
        TensorStream("embeddings", kind, [count, dim], vectors()),
    ]
    if length is not None:
        blocks = _chosen(update, lambda source: source.frame_blocks())
        streams.append(TensorStream("frame_embeddings", np.float16, [count, length, dim], blocks))
    streams += [
        TensorStream("paths", np.uint8, [len(raw)], [np.frombuffer(raw, np.uint8)]),
        TensorStream("digest", np.uint8, [digest.digest_size], fingerprint()),
    ]
    metadata = {"schema": SCHEMA, "space": sources[0].space, "metric": METRIC, "count": str(count)}
    stream_tensors(path, streams, {**metadata, "kind": sources[0].kind, "next_id": str(next_id)})


def _ids(update: Update) -> tuple[NDArray[np.int64], int]:
    """Ascending ids of the rows that stay, and the next that is free."""
    first, count = update.sources[0], update.count
    own = np.zeros(0, np.int64) if first.ids is None else first.ids[update.keep[0]]
    next_id = first.next_id + count - len(own)
    return np.concatenate([own, np.arange(first.next_id, next_id, dtype=np.int64)]), next_id


def _frame_count(sources: Sequence[RowSource]) -> int | None:
    """T of the frames' embeddings that all sources have; None where none has."""
    for source in sources[1:]:
        if source.frames != sources[0].frames:
            with_them, without = (sources[0], source) if sources[0].frames else (source, sources[0])
            raise DataError(
                f"{with_them.name} holds {with_them.frames} frames' embeddings a row and {without.name} "
                f"{without.frames or 'none'}; embed the videos of one again, or leave them all out: --no-frames"
            )
    return sources[0].frames


def _chosen(update: Update, blocks_of: Callable[[RowSource], Iterable[NDArray[Any]]]) -> Iterator[NDArray[Any]]:
    """The rows that stay of each source's blocks."""
    for source, keep in zip(update.sources, update.keep, strict=True):
        row = 0
        for block in blocks_of(source):
            part = keep[row : row + len(block)]
            yield block if part.all() else block[part]
            row += len(block)


def _checked(source: RowSource) -> Iterator[NDArray[np.float32]]:
    row = 0
    for block in source.vector_blocks():
        lengths = np.linalg.norm(block, axis=1)
        wrong = np.flatnonzero(~(np.abs(lengths - 1) <= UNIT_TOLERANCE))  # so that NaN is wrong too
        if len(wrong):
            place = row + int(wrong[0])
            raise DataError(
                f"{source.name}: row {place}, {source.table.paths[place].decode('utf-8', 'backslashreplace')!r}, has "
                f"length {lengths[wrong[0]]:.4g} where an embedding has 1; embed it again"
            )
        yield block
        row += len(block)


def _kept(paths: Sequence[bytes], keep: NDArray[np.bool_]) -> Iterator[bytes]:
    return (path for path, stays in zip(paths, keep.tolist(), strict=True) if stays)
