"""A prepared folder, opened: shards of sampled frames and index.json, which says what they are (see prepare.py).

    {"schema": 1, "data": {...}, "frames": {...}, "format": "npy",
     "splits": {"train": {"clips": 9000, "readable": 8998, "captions": 179960,
                          "shards": [{"file", "sha256", "bytes", "first", "clips"}, ...],
                          "unreadable": [{"row", "error", "clip": {...}}, ...]}}}

A shard holds the rows from `first` on, `clips` of them, without those that could not be read."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field, ValidationError

from vtr_runtime.errors import DataError
from vtr_runtime.manifest import FrameSpec, Record

from .clip import Clip
from .shards import clip_from_record, read_shard
from .stored import Format, Shard, StoredFrames

INDEX = "index.json"
UNFINISHED = ".parts"  # folder of what is known of an unfinished one


class Unreadable(Record):
    row: int = Field(ge=0)
    error: str
    clip: dict[str, Any]


class ShardEntry(Record):
    file: str = Field(pattern=r"^[a-z]+-\d+\.tar$")  # no path leads outside
    sha256: str
    bytes: int
    first: int = Field(ge=0)
    clips: int = Field(ge=1)


class PreparedSplit(Record):
    clips: int
    readable: int
    captions: int
    shards: tuple[ShardEntry, ...]
    unreadable: tuple[Unreadable, ...]

    @property
    def bytes(self) -> int:
        return sum(shard.bytes for shard in self.shards)


class SourceData(Record):
    """What was prepared; `fingerprint` is of every clip's annotations and of its file's size and time of change."""

    title: str
    name: str | None = Field(description="of the benchmark")
    subset: bool
    held_out: int
    fingerprint: str


class Index(Record):
    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = Field(default=1, alias="schema")
    data: SourceData
    frames: FrameSpec
    format: Format
    splits: dict[str, PreparedSplit]


class Prepared:
    """DataError for a folder that is none, or was not prepared to the end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        path = folder / INDEX
        if not path.is_file():
            if (folder / UNFINISHED).is_dir():
                raise DataError(f"{folder} is not prepared to the end; give its vtr-train prepare command again")
            raise DataError(f"{folder} has no {INDEX}; make it with vtr-train prepare SPEC -o {folder}")
        try:
            self.index = Index.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            said = " ".join(str(error).splitlines()[:3])
            raise DataError(f"{path} is no index of a prepared folder ({said}); prepare it anew") from error

    def split(self, name: str) -> tuple[Clip, ...]:
        """All clips in the data set's order, the unreadable ones among them. The shards are listed, not verified."""
        if name not in self.index.splits:
            raise DataError(f"{self.folder} has no split {name!r}, only {', '.join(self.index.splits)}; prepare it too")
        split = self.index.splits[name]
        failed = {one.row: one for one in split.unreadable}
        clips: dict[int, Clip] = {}
        for entry in split.shards:
            shard = Shard(self.folder / entry.file, entry.sha256, entry.bytes, self.index.frames, self.index.format)
            rows = range(entry.first, entry.first + entry.clips)
            there = [row for row in rows if row not in failed]
            clips.update(zip(there, read_shard(shard, there), strict=True))
            for row in set(rows) - set(there):
                stored = StoredFrames(shard, error=failed[row].error)
                clips[row] = clip_from_record(failed[row].clip, stored)
        return tuple(clips[row] for row in sorted(clips))
