"""The page itself: what is shown, in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vtr_export.pages import render as pages
from vtr_export.pages.parts import Picture, Table


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
    """HTML in UTF-8."""
    return pages.render(Path(__file__).with_name("page.html.j2"), page=page)
