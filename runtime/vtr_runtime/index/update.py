"""Which rows of several sources make the next index: later files replace earlier ones, some are deleted or pruned."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..embeddings import EmbeddingFile
from ..errors import DataError, SpaceError
from ..rows import UNKNOWN, RowSource
from .opened import Index


@dataclass(frozen=True)
class Update:
    """The rows that stay of each source, bool [N] each, and what became of the others, in files (or sentences)."""

    sources: tuple[RowSource, ...]
    keep: tuple[NDArray[np.bool_], ...]
    replaced: int = 0  # a later source has them
    deleted: int = 0
    gone: int = 0
    changed: int = 0
    unstamped: int = 0  # pruning could only see that they are there
    failed: tuple[tuple[bytes, str, bool], ...] = ()  # could not be embedded: path, why, whether earlier rows stay

    @property
    def count(self) -> int:
        """Rows that stay."""
        return sum(int(kept.sum()) for kept in self.keep)


def open_rows(path: Path) -> RowSource:
    """A Parquet file or an index, whichever it is. DataError for what is neither."""
    parquet = path.suffix == ".parquet"
    if not parquet and path.is_file():
        with path.open("rb") as file:
            parquet = file.read(4) == b"PAR1"
    return EmbeddingFile(path) if parquet else Index(path)


def plan_update(
    sources: Sequence[RowSource], *, space: str | None = None, delete: Sequence[bytes] = (), prune: bool = False
) -> Update:
    """Choose the rows. Of a file that several sources have, the rows of the last one stay.

    `delete` names files, folders or sentences; `prune` drops files that are gone, or changed since they were embedded.
    SpaceError for a source of another space, DataError for sources that do not go together, a name in `delete` that is
    nowhere, or when all files are gone."""
    _check_alike(sources, sources[0].space if space is None else space)
    latest: dict[bytes, int] = {}
    for number, source in enumerate(sources):
        latest.update(dict.fromkeys(source.table.paths, number))
    before = sum(len(set(source.table.paths)) for source in sources)
    deleted = _named(latest, delete)
    left = [path for path in latest if path not in deleted]
    gone, changed, unstamped = _look(sources, left, latest) if prune else (set[bytes](), set[bytes](), 0)
    if left and len(gone) == len(left):
        raise DataError(
            f"all {len(left)} files of the index are gone, such as {os.fsdecode(left[0])!r}; mount their drive, run "
            "this in the folder that their names start from, or --delete them"
        )
    dropped = deleted | gone | changed
    return Update(
        tuple(sources),
        tuple(
            np.array([latest[path] == number and path not in dropped for path in source.table.paths], np.bool_)
            for number, source in enumerate(sources)
        ),
        replaced=before - len(latest),
        deleted=len(deleted),
        gone=len(gone),
        changed=len(changed),
        unstamped=unstamped,
        failed=tuple(_failures(sources, latest, dropped)),
    )


def _failures(
    sources: Sequence[RowSource], latest: Mapping[bytes, int], dropped: set[bytes]
) -> Iterator[tuple[bytes, str, bool]]:
    """Files of which a source has no part because none could be embedded, and no later source has one."""
    for number, source in enumerate(sources):
        for path, why in source.failed.items():
            if latest.get(path, -1) < number:
                yield path, why, path in latest and path not in dropped


def _check_alike(sources: Sequence[RowSource], space: str) -> None:
    first = sources[0]
    for source in sources:
        if source.space != space:
            raise SpaceError(
                f"{source.name} holds embeddings of another model (space {source.space[:12]}, the bundle's is "
                f"{space[:12]}); embed the videos again with this bundle"
            )
        if (source.kind, source.dim) != (first.kind, first.dim):
            raise DataError(
                f"{source.name} holds {source.kind} rows of length {source.dim} and {first.name} {first.kind} rows of "
                f"length {first.dim}; make an index of each"
            )


def _named(paths: dict[bytes, int], names: Sequence[bytes]) -> set[bytes]:
    """Those that are one of the names or lie in a folder of that name."""
    found: set[bytes] = set()
    for name in names:
        folder = name.rstrip(b"/") + b"/"
        some = {path for path in paths if path == name or path.startswith(folder)}
        if not some:
            raise DataError(f"no row is of {os.fsdecode(name)!r}, which is to be deleted; give it as search prints it")
        found |= some
    return found


def _look(
    sources: Sequence[RowSource], paths: Sequence[bytes], latest: dict[bytes, int]
) -> tuple[set[bytes], set[bytes], int]:
    """Files that are gone, files that changed, and how many are there of which nothing is known."""
    wanted = set(paths)
    stamps = {
        path: tuple(stamp)
        for number, source in enumerate(sources)
        for path, stamp in zip(source.table.paths, source.table.stamps.tolist(), strict=True)
        if path in wanted and latest[path] == number
    }
    gone, changed, unstamped = set(), set(), 0
    for path, stamp in stamps.items():
        try:
            now = Path(os.fsdecode(path)).stat()
        except (FileNotFoundError, NotADirectoryError):
            gone.add(path)
            continue
        if UNKNOWN in stamp:
            unstamped += 1
        elif stamp != (now.st_size, now.st_mtime_ns):
            changed.add(path)
    return gone, changed, unstamped
