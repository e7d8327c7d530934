"""One clip of the generic formats (JSON Lines, CSV, Parquet), checked.

video      path, relative to the file's folder or to the one that `videos` names
captions   in CSV and Parquet also `caption`, a row each
split      train, val or test
start, end in seconds, optional
group      optional: clips that belong into one hard batch and among which a model is also ranked apart
kind       optional: a name under which groups are reported
id         optional: a name to list the clip by; else the path as it is given"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from vtr_runtime.errors import DataError

from .clip import Clip

Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    video: Name
    captions: Annotated[tuple[Name, ...], Field(min_length=1)]
    split: Literal["train", "val", "test"]
    start: Annotated[float, Field(ge=0)] | None = None
    end: Annotated[float, Field(gt=0)] | None = None
    group: Name | None = None
    kind: Name | None = None
    id: Name | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Record:
        if self.start is not None and self.end is not None and self.end <= self.start:
            raise ValueError(f"end {self.end} is not after start {self.start}")
        return self

    def clip(self, folder: Path) -> Clip:
        fields = dict(self)
        return Clip(**{**fields, "video": folder / self.video, "id": self.id or self.video})


def record_from_json(line: bytes, place: str) -> Record:
    """DataError that begins with `place`."""
    try:
        return Record.model_validate_json(line)
    except ValidationError as error:
        _refuse(error, place)


def record_from_row(row: Mapping[str, Any], place: str) -> Record:
    """A row with the column `caption` or `captions`; empty cells are absent. DataError that begins with `place`."""
    fields = {name: value for name, value in row.items() if value not in (None, "")}
    if "caption" in fields and "captions" not in fields:
        fields["captions"] = (fields.pop("caption"),)
    try:
        return Record.model_validate(fields)
    except ValidationError as error:
        _refuse(error, place)


def _refuse(error: ValidationError, place: str) -> NoReturn:
    first = error.errors(include_url=False, include_context=False)[0]
    field = ".".join(map(str, first["loc"]))
    at = f"{field}: " if field else ""
    raise DataError(f"{place}: {at}{first['msg'].removeprefix('Value error, ')}; mend this line") from None
