"""The page itself: what is shown, in order. Every text is escaped, since captions are anyone's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined


@dataclass(frozen=True)
class Table:
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""  # what to look for
    folded: bool = False  # long: shown on a click


@dataclass(frozen=True)
class Picture:
    uri: str
    alt: str
    note: str


@dataclass(frozen=True)
class Side:
    """One clip of a row: frames, and the lines of text under them."""

    uri: str
    label: str
    captions: Sequence[str]


@dataclass(frozen=True)
class Row:
    heading: str
    right: Side
    wrong: Side


@dataclass(frozen=True)
class Section:
    title: str
    note: str = ""
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()
    rows: Sequence[Row] = ()


@dataclass(frozen=True)
class Page:
    title: str
    lead: str
    sections: Sequence[Section]


def render(page: Page) -> bytes:
    """HTML in UTF-8. What no UTF-8 can hold, such as a file name of other bytes, is shown as an escape."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2").render(page=page).encode("utf-8", "backslashreplace")
