"""The generic formats: a file of JSON Lines, CSV or Parquet that says of each clip what record.py lists.

    {"video": "a/b.mp4", "captions": ["a dog runs"], "split": "train"}

A CSV or Parquet file may also have a row for each caption; rows that agree in all but the caption are one clip."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from vtr_runtime.errors import DataError

from .clip import Clip
from .record import Record, record_from_json, record_from_row
from .texts import read_csv

NAMES = ("data.jsonl", "data.csv", "data.parquet")
"""What a folder may hold; the suffix tells the format."""


def data_file(path: Path) -> Path:
    """The file that a path means: itself, or the one of NAMES that a folder holds."""
    if path.is_dir():
        found = [path / name for name in NAMES if (path / name).is_file()]
        if len(found) > 1:
            raise DataError(f"{path} holds {' and '.join(file.name for file in found)}; name the one that is meant")
        path = found[0] if found else path / NAMES[0]
    if not path.is_file():
        raise DataError(
            f"{path} is not there; give a .jsonl, .csv or .parquet file, a folder that holds {NAMES[0]}, or a "
            "benchmark with its folder, such as msrvtt-9k:DIR"
        )
    return path


def read_generic(path: Path, folder: Path) -> list[Clip]:
    """The clips of a file in its order; their videos lie below `folder`. DataError names file and line."""
    read = FORMATS.get(path.suffix.lower(), _json_lines)
    return [record.clip(folder) for record in read(path)]


def _json_lines(path: Path) -> Iterator[Record]:
    with path.open("rb") as lines:  # bytes: so that a line of another encoding is named too
        for number, line in enumerate(lines, 1):
            line = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            if line.strip():
                yield record_from_json(line, f"{path}:{number}")


def _csv(path: Path) -> Iterator[Record]:
    rows = read_csv(path, required=("video", "split"))
    return _merge((f"{path}:{row.line}", row.fields) for row in rows)


def _parquet(path: Path) -> Iterator[Record]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows = pq.read_table(path).to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} cannot be read as Parquet ({str(error).splitlines()[0]}); write it again") from error
    return _merge((f"{path}: row {number}", row) for number, row in enumerate(rows, 1))


def _merge(rows: Iterable[tuple[str, Mapping[str, object]]]) -> Iterator[Record]:
    """Rows of one clip become one record, where the first of them stands."""
    records: dict[Record, list[str]] = {}
    for place, row in rows:
        record = record_from_row(row, place)
        records.setdefault(record.model_copy(update={"captions": ()}), []).extend(record.captions)
    return (record.model_copy(update={"captions": tuple(captions)}) for record, captions in records.items())


FORMATS: dict[str, Callable[[Path], Iterator[Record]]] = {".csv": _csv, ".parquet": _parquet}
