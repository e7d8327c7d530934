"""The files below a folder, listed once: annotation files by name, videos by id."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from vtr_runtime.clip_lists import VIDEO_SUFFIXES
from vtr_runtime.errors import DataError


class Tree:
    """All files below `root`, through links too, without those in folders whose name begins with a dot."""

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise DataError(f"{root} is not a folder; give the one that holds the data set's files")
        self.root = root
        self._named: dict[str, list[Path]] = {}
        self._stems: dict[str, list[Path]] = {}
        for path in _walk(root):
            self._named.setdefault(path.name, []).append(path)
            stem = stem_of(path.name)
            if stem != path.name:
                self._stems.setdefault(stem, []).append(path)

    def find(self, *names: str) -> Path | None:
        """The file with the first of these names that is there. DataError where it is there twice."""
        for name in names:
            found = self._named.get(name, [])
            if len(found) > 1:
                raise DataError(f"{found[0]} and {found[1]} have the same name; leave only the one that is meant")
            if found:
                return found[0]
        return None

    def videos(self, names: Iterable[str]) -> list[Path]:
        """Files of the first of `names` that has any: named exactly so, or so with a video's suffix. A name with a
        suffix of its own stands for the same name with another one too: sets are converted."""
        for name in names:
            stem = stem_of(name)
            named, stems = self._named, self._stems
            found = named.get(name) or stems.get(name) or stems.get(stem) or named.get(stem)
            if found:
                return found
        return []


def stem_of(name: str) -> str:
    """A file's name without the suffix of a video, or without a last dot that nothing follows (DiDeMo). What else
    follows a dot belongs to the name: ids hold dots."""
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and stem and (not suffix or f".{suffix.lower()}" in VIDEO_SUFFIXES) else name


def _walk(root: Path) -> Iterator[Path]:
    seen = set()
    for folder, folders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a link back to where it lies
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(folder, name) for name in sorted(files))
