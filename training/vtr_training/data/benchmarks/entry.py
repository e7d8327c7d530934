"""What a reader gives, and how it finds its files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from vtr_runtime.errors import DataError

from ..texts import read_lines
from ..tree import Tree


@dataclass(frozen=True)
class Entry:
    """What the annotations say of a clip; its video is looked for under `names` (its id, where there are none).

    `place` is where it stands, for messages; `source` what the clip was cut from."""

    id: str
    captions: tuple[str, ...]
    place: str
    names: tuple[str, ...] = ()
    start: float | None = None
    end: float | None = None
    source: str | None = None


class Reader(Protocol):
    def __call__(self, tree: Tree, split: str) -> Iterable[Entry]:
        """The entries of a split, in the order of the files. DataError, with file and line, for a file that is absent
        or not what it should be. Entries may repeat an id or have empty captions: that is the caller's to judge."""
        ...


@dataclass(frozen=True)
class ListedId:
    id: str
    place: str


def need(tree: Tree, *names: str) -> Path:
    """The first of the files that is there; DataError where none is."""
    found = tree.find(*names)
    if found is None:
        raise DataError(f"{' or '.join(names)} is not there below {tree.root}; fetch it (docs/data-sets.md says where)")
    return found


def read_ids(path: Path) -> Iterator[ListedId]:
    """One id a line."""
    return (ListedId(line.text, f"{path}:{line.number}") for line in read_lines(path))


def paragraph(sentences: Iterable[str]) -> tuple[str, ...]:
    """All sentences as one caption, one blank between them; none where nothing is said."""
    joined = " ".join(stripped for sentence in sentences if (stripped := sentence.strip()))
    return (joined,) if joined else ()
