"""Embedding many clips into one Parquet file, in parts that outlive the run: a killed run goes on where it was.

The clips are cut into groups; each group's rows become a file of its own in a folder beside the output, and at the end
the files become the output, row for row in the order of the clips. A group's rows do not depend on the others (see
`Pipeline.embed_groups`), so the output is the same, byte for byte, however often the run was killed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path
from typing import Any

import filelock
import pyarrow as pa
import pyarrow.parquet as pq

from .clips import Clip, EmbeddedClip
from .embeddings import MAX_ROW_GROUP, RowLayout, as_table
from .errors import UsageError
from .manifest import canonical_json
from .publish import staged_file, storage_errors
from .sampling import Windows

SCHEMA = 1
# What a killed run loses at most, and what a worker of a cluster is given at a time.
GROUP_CLIPS = 32
GROUP_CLIPS_IN_WINDOWS = 4  # a file has many
# Rows that are held before they are written: a group may be of long files.
ROWS_HELD = 256
PROBLEMS_KEPT = 100
SUFFIX = ".parts"


@dataclass(frozen=True)
class Job:
    """What is to be done: two runs that agree in it give the same file."""

    clips: Sequence[Clip]
    layout: RowLayout
    backend: str
    windows: Windows | None = None

    @property
    def groups(self) -> int:
        return -(-len(self.clips) // self._size)

    def group(self, number: int) -> Sequence[Clip]:
        return self.clips[number * self._size : (number + 1) * self._size]

    @property
    def _size(self) -> int:
        return GROUP_CLIPS if self.windows is None else GROUP_CLIPS_IN_WINDOWS

    def describe(self) -> dict[str, Any]:
        """Its settings, for a later run to compare itself with."""
        clips = hashlib.sha256()
        for clip in self.clips:
            clips.update(canonical_json([os.fsencode(clip.path).hex(), clip.start, clip.end]))
        return {
            "schema": SCHEMA,
            "model": self.layout.space,
            "variant": self.layout.variant,
            "backend": self.backend,
            "windows": None if self.windows is None else asdict(self.windows),
            "clips": clips.hexdigest(),
            "groups": self.groups,
        }


@dataclass
class Summary:
    """What became of the rows: how many by status, and the first of those with something to say."""

    rows: Counter[str] = field(default_factory=Counter)
    problems: list[dict[str, str]] = field(default_factory=list)
    problems_left_out: int = 0

    def add(self, table: pa.Table) -> None:
        for row in table.select(["path_bytes", "status", "error"]).to_pylist():
            self.rows[row["status"]] += 1
            if row["status"] == "ok":
                continue
            path = os.fsdecode(row["path_bytes"])
            problem = {"path": path, "status": row["status"], "message": row["error"]}
            if problem in self.problems[-1:]:
                continue  # windows of one file say the same of it
            if len(self.problems) < PROBLEMS_KEPT:
                self.problems.append(problem)
            else:
                self.problems_left_out += 1


class Parts:
    """The folder of a job's finished groups, `.NAME.parts` beside the output; one run at a time."""

    def __init__(self, output: Path, job: Job) -> None:
        self.folder = output.with_name(f".{output.name}{SUFFIX}")
        self._output, self._job = output, job

    @contextmanager
    def opened(self, *, restart: bool = False) -> Iterator[None]:
        """Take the folder for this run. UsageError where another run has it, or left it behind with other settings."""
        with storage_errors(self._output):
            self.folder.mkdir(exist_ok=True)
            lock = filelock.FileLock(self.folder / "lock")
            try:
                lock.acquire(timeout=0)
            except filelock.Timeout as error:
                raise UsageError(f"another run is writing {self._output}; wait for it, or choose another -o") from error
            try:
                if restart:
                    for part in self.folder.glob("*.parquet"):
                        part.unlink()
                    (self.folder / "job.json").unlink(missing_ok=True)
                self._check_settings()
                yield
            finally:
                if not any(self.folder.glob("*.parquet")):
                    shutil.rmtree(self.folder, ignore_errors=True)  # nothing was done that is worth keeping
                lock.release()

    def _check_settings(self) -> None:
        file, settings = self.folder / "job.json", self._job.describe()
        try:
            before = json.loads(file.read_bytes())
        except (OSError, ValueError):
            before = None  # a fresh folder, or one that was left in its first moment
        if before is None:
            with staged_file(file) as staged:
                staged.write_bytes(canonical_json(settings))
        elif before != settings:
            other = ", ".join(key for key, value in settings.items() if before.get(key) != value and key != "groups")
            raise UsageError(
                f"an unfinished run for {self._output} was of other settings ({other}); give those again to go on "
                "with it, or begin anew with --restart"
            )

    def missing(self) -> list[int]:
        """The groups that are still to be done, in order."""
        return [number for number in range(self._job.groups) if not self._is_whole(self._part(number))]

    @staticmethod
    def _is_whole(part: Path) -> bool:
        try:
            pq.read_metadata(part)
        except (OSError, pa.ArrowException):
            return False
        return True

    def write(self, number: int, tables: Iterable[pa.Table]) -> None:
        """Keep the rows of a group; they are there whole or not at all."""
        with staged_file(self._part(number)) as staged, pq.ParquetWriter(staged, self._job.layout.schema) as writer:
            for table in tables:
                writer.write_table(table)

    def merge(self) -> Summary:
        """Write the output from the parts, and take the folder away."""
        summary = Summary()
        schema = self._job.layout.schema
        with staged_file(self._output) as staged, pq.ParquetWriter(staged, schema, compression="zstd") as writer:
            for table in _regrouped(self._tables(), MAX_ROW_GROUP):
                summary.add(table)
                writer.write_table(table, row_group_size=MAX_ROW_GROUP)
        shutil.rmtree(self.folder, ignore_errors=True)
        return summary

    def _tables(self) -> Iterator[pa.Table]:
        for number in range(self._job.groups):
            with pq.ParquetFile(self._part(number)) as part:
                for batch in part.iter_batches(ROWS_HELD):
                    yield pa.Table.from_batches([batch])

    def _part(self, number: int) -> Path:
        return self.folder / f"{number:08d}.parquet"


def _regrouped(tables: Iterable[pa.Table], rows: int) -> Iterator[pa.Table]:
    """The same rows in tables of `rows` each; the last one may be shorter."""
    held: list[pa.Table] = []
    count = 0
    for table in tables:
        held.append(table)
        count += len(table)
        while count >= rows:
            whole = pa.concat_tables(held)
            yield whole.slice(0, rows).combine_chunks()
            held, count = [whole.slice(rows)], count - rows
    if count:
        yield pa.concat_tables(held).combine_chunks()


def write_groups(
    parts: Parts, numbers: Sequence[int], items: Iterable[tuple[int, EmbeddedClip]], layout: RowLayout
) -> None:
    """Keep the rows of the groups `numbers` as they come: pairs of a place in `numbers` and a row, in order."""
    for place, rows in groupby(items, key=itemgetter(0)):
        found = (item for _, item in rows)
        parts.write(numbers[place], (as_table(some, layout) for some in _chunks(found, ROWS_HELD)))


def _chunks(items: Iterator[EmbeddedClip], size: int) -> Iterator[list[EmbeddedClip]]:
    while chunk := list(islice(items, size)):
        yield chunk
