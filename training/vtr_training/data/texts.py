"""Annotation files to lines, rows and JSON. Whatever is wrong is a DataError that names file and line."""

from __future__ import annotations

import csv
import io
import json
import pickle
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_origin

from pydantic import BaseModel, TypeAdapter, ValidationError

from vtr_runtime.errors import DataError

T = TypeVar("T")


@dataclass(frozen=True)
class Line:
    number: int  # from 1
    text: str  # without its end


@dataclass(frozen=True)
class Row:
    line: int  # where it begins: a quoted field may hold line breaks
    fields: dict[str, str]


def read_text(path: Path) -> str:
    """UTF-8, with or without a byte order mark."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); check its permissions") from error
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise DataError(f"{path}:1: the file is UTF-16; convert it: iconv -f UTF-16 -t UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}:{line}: byte 0x{content[error.start]:02x} is not UTF-8; convert the file, for instance: "
            "iconv -f WINDOWS-1252 -t UTF-8"
        ) from None


def read_lines(path: Path) -> Iterator[Line]:
    """The lines that hold something, stripped. Lines end as in files (\\n, \\r\\n) and not at the other characters at
    which str.splitlines does: captions hold some of them."""
    for number, text in enumerate(read_text(path).split("\n"), 1):
        if stripped := text.strip():
            yield Line(number, stripped)


def read_csv(path: Path, required: Sequence[str]) -> Iterator[Row]:
    """Rows below a header. A field in quotes may hold commas, line breaks and doubled quotes."""
    reader = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    header: list[str] | None = None
    line = 1
    while True:
        try:
            fields = next(reader, None)
        except csv.Error as error:
            raise DataError(f"{path}:{line}: {error}; mend the quotes of this row") from error
        if fields is None:
            break
        begun, line = line, reader.line_num + 1
        if not fields:
            continue
        if header is None:
            header = [name.strip() for name in fields]
            if missing := [name for name in required if name not in header]:
                raise DataError(f"{path}:{begun}: no column {missing[0]!r}, only {', '.join(header)}; name it so")
        elif len(fields) != len(header):
            raise DataError(f"{path}:{begun}: {len(fields)} fields where the header has {len(header)}; mend this row")
        else:
            yield Row(begun, dict(zip(header, fields, strict=True)))
    if header is None:
        raise DataError(f"{path} is empty; fetch it again")


class Layout(BaseModel):
    """The part of an object in a JSON file that is read; what else it holds is passed over."""


def read_json(path: Path, layout: type[T]) -> T:
    """A file of one JSON value in `layout`. A table that names a key twice is refused: one would be lost."""
    text = read_text(path)

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            line = text.count("\n", 0, text.find(json.dumps(twice), text.find(json.dumps(twice)) + 1)) + 1
            raise DataError(f"{path}:{line}: {twice!r} stands here twice; take one of them out")
        return made

    try:
        value = json.loads(text, object_pairs_hook=unique if get_origin(layout) is dict else None)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{error.lineno}: not JSON ({error.msg}); fetch the file again") from None
    return _checked(path, value, layout)


class _NoCode(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def read_pickle(path: Path, layout: type[T]) -> T:
    """Lists, dicts and strings of a pickle file; one that would run code is refused."""
    try:
        with path.open("rb") as stream:
            value = _NoCode(stream, encoding="utf-8").load()
    except (pickle.UnpicklingError, EOFError, ValueError, AttributeError, IndexError, KeyError, TypeError) as error:
        raise DataError(f"{path} is not a pickle of plain lists ({error}); fetch the file again") from error
    return _checked(path, value, layout)


def _checked(path: Path, value: Any, layout: type[T]) -> T:
    try:
        return TypeAdapter(layout).validate_python(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        at = "".join(f"[{part!r}]" for part in first["loc"])
        raise DataError(
            f"{path}: {at or 'the whole'}: {first['msg']}; this is another file, or a damaged one"
        ) from None
