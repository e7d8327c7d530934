"""The generic data format: JSON Lines, one clip a line.

    {"video": "a/b.mp4", "captions": ["a dog runs"], "split": "train"}

`video` is relative to the file. Optional: `start` and `end` in seconds; `group`, clips that belong into one hard batch
and among which a model is also ranked apart; `kind`, a name under which groups are reported."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from vtr_runtime.errors import DataError

DATA_FILE = "data.jsonl"
SPLITS = ("train", "val", "test")

Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


@dataclass(frozen=True)
class Clip:
    """A video, or the part of it from `start` up to `end` (seconds), and what is said about it."""

    video: Path
    captions: tuple[str, ...]
    split: str
    start: float | None = None
    end: float | None = None
    group: str | None = None
    kind: str | None = None


class _Line(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    video: Name
    captions: Annotated[tuple[Name, ...], Field(min_length=1)]
    split: Literal["train", "val", "test"]
    start: Annotated[float, Field(ge=0)] | None = None
    end: Annotated[float, Field(gt=0)] | None = None
    group: Name | None = None
    kind: Name | None = None

    @model_validator(mode="after")
    def _ordered(self) -> _Line:
        if self.start is not None and self.end is not None and self.end <= self.start:
            raise ValueError(f"end {self.end} is not after start {self.start}")
        return self


def data_file(spec: str | Path) -> Path:
    """The .jsonl file that a SPEC means: itself, or data.jsonl in a folder."""
    path = Path(spec) / DATA_FILE if Path(spec).is_dir() else Path(spec)
    if not path.is_file():
        raise DataError(f"{path} is not there; give a .jsonl file, or a folder that holds {DATA_FILE}")
    return path


def read_clips(spec: str | Path, split: str | None = None) -> list[Clip]:
    """The clips of one split, or all, in the order of the file. DataError names file and line of what is wrong."""
    path = data_file(spec)
    with path.open("rb") as lines:  # bytes: so that a line of another encoding is named too
        clips = [_clip(line, path, number) for number, line in enumerate(lines, 1) if line.strip()]
    chosen = [clip for clip in clips if split in (None, clip.split)]
    if not chosen:
        what = "no clip" if split is None else f"no clip of the split {split!r}"
        raise DataError(f"{path} has {what}; add some, or name a split of {', '.join(SPLITS)} that it has")
    return chosen


def _clip(line: bytes, path: Path, number: int) -> Clip:
    try:
        parsed = _Line.model_validate_json(line)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        field = ".".join(map(str, first["loc"]))
        at = f"{field}: " if field else ""
        raise DataError(f"{path}:{number}: {at}{first['msg'].removeprefix('Value error, ')}; mend this line") from None
    return Clip(**{**dict(parsed), "video": path.parent / parsed.video})
