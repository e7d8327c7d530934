"""Which clips a job is of: files, folders, patterns, lists and Parquet manifests, in a fixed order."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from .clips import Clip
from .errors import DataError, UsageError
from .sampling import check_cut

# A folder is searched for these; a file that is named itself is always tried.
VIDEO_SUFFIXES = frozenset(
    ".3gp .avi .flv .gif .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .ogv .ts .webm .wmv".split()  # noqa: SIM905
)
_PATTERN = frozenset("*?[")


@dataclass(frozen=True)
class ClipList:
    """`clips`, each once; `skipped` are the files in folders that are not named like videos."""

    clips: tuple[Clip, ...]
    skipped: tuple[Path, ...] = ()


def gather(paths: Iterable[str | Path], lists: Iterable[Path] = ()) -> ClipList:
    """Clips from files, folders (searched for videos, sorted) and patterns (`**` for folders in folders, sorted), as
    given, and after them those of the lists. UsageError for a pattern that matches nothing, DataError for a bad list.
    """
    clips: dict[Clip, None] = {}  # a clip that is named twice is embedded once
    skipped: list[Path] = []
    for path in map(Path, paths):
        for file in _matching(path):
            if not file.is_dir():
                clips[Clip(file)] = None
                continue
            for found in _walk(file):
                if found.suffix.lower() in VIDEO_SUFFIXES:
                    clips[Clip(found)] = None
                else:
                    skipped.append(found)
    for name in lists:
        clips.update(dict.fromkeys(read_list(name)))
    return ClipList(tuple(clips), tuple(skipped))


def _matching(path: Path) -> Sequence[Path]:
    if path.exists() or path.is_symlink() or not _PATTERN & set(str(path)):
        return [path]
    found = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207  # Path.glob takes no absolute pattern
    if not found:
        raise UsageError(f"no file matches {path}; check the pattern, and put it in quotes")
    return [Path(name) for name in found]


def _walk(folder: Path) -> Iterator[Path]:
    return iter(sorted(item for item in folder.rglob("*") if item.is_file()))


def read_list(path: Path) -> list[Clip]:
    """The clips of a list: Parquet with a column `path` or `path_bytes`, and `start` and `end` in seconds where only a
    part is meant; or text, a path a line. `-` is text on standard input. Relative paths are meant from where the
    command runs, as everywhere else. DataError for anything else."""
    if str(path) == "-":
        return _from_text(sys.stdin.buffer)
    if not path.is_file():
        raise DataError(f"the list {path} is not a file; give a text file with a path a line, or a Parquet file")
    if path.suffix == ".parquet":
        return _from_parquet(path)
    with path.open("rb") as stream:
        return _from_text(stream)


def _from_text(stream: IO[bytes]) -> list[Clip]:
    lines = (line.rstrip(b"\r\n") for line in stream)
    return [Clip(Path(os.fsdecode(line))) for line in lines if line]


def _from_parquet(path: Path) -> list[Clip]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        names = set(pq.read_schema(path).names)
        column = next((name for name in ("path_bytes", "path") if name in names), None)
        if column is None:
            raise DataError(f"the list {path} has no column path; its columns are {', '.join(sorted(names))}")
        wanted = [column, *(name for name in ("start", "end") if name in names)]
        rows: list[dict[str, Any]] = pq.read_table(path, columns=wanted).to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"the list {path} cannot be read as Parquet ({str(error).splitlines()[0]})") from error
    clips = []
    for number, row in enumerate(rows):
        name, start, end = row[column], row.get("start"), row.get("end")
        if not isinstance(name, str | bytes) or not name:
            raise DataError(f"row {number} of the list {path} has no path; give each row one")
        try:
            check_cut(start, end)
        except UsageError as error:
            raise DataError(f"row {number} of the list {path}: {error}") from error
        clips.append(Clip(Path(os.fsdecode(name)), start, end))
    return clips
