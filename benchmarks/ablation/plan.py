"""rows.toml -> the runs that have to be made, in an order in which each finds what it starts from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomllib

HERE = Path(__file__).parent
STAND_IN = "stand-in"  # for CLIP: the run that all others begin with, directly or not


@dataclass(frozen=True)
class Row:
    """One line of a table: a model that is trained once for each seed into a folder named `id`."""

    id: str
    name: str
    settings: tuple[str, ...]  # as for `vtr-train fit --set`
    start: str  # id of the row whose best.pt it begins with
    top_k: int | None  # of the second stage


@dataclass(frozen=True)
class Section:
    title: str
    rows: tuple[Row, ...]


def read_sections(path: Path = HERE / "rows.toml") -> tuple[Section, ...]:
    """The tables. ValueError for an id that is used twice or not there."""
    sections = []
    known: dict[str, Row] = {}
    for entry in tomllib.loads(path.read_text(encoding="utf-8"))["sections"]:
        rows = tuple(_row(given, entry.get("second_stage"), known) for given in entry["rows"])
        sections.append(Section(entry["title"], rows))
    return tuple(sections)


def _row(given: dict[str, Any], top_k: int | None, known: dict[str, Row]) -> Row:
    if "same_as" in given:
        shown = known[given["same_as"]]
        return Row(shown.id, given["name"], shown.settings, shown.start, shown.top_k)
    start = given.get("start", STAND_IN)
    if given["id"] in known or start not in {STAND_IN, *known}:
        raise ValueError(
            f"rows.toml, {given['id']}: its id is taken, or it starts from {start!r}, which stands nowhere before"
        )
    settings = (*given.get("set", ()), *([] if top_k is None else [f"validation.top_k={top_k}"]))
    row = known[given["id"]] = Row(given["id"], given["name"], settings, start, top_k)
    return row


def in_rounds(sections: tuple[Section, ...]) -> list[list[Row]]:
    """Each run once: those that begin with the stand-in, then those that begin with one of these, and so on."""
    rows = {row.id: row for section in sections for row in section.rows}
    depth: dict[str, int] = {STAND_IN: -1}
    for row in rows.values():  # a row starts from an earlier one
        depth[row.id] = depth[row.start] + 1
    return [[row for row in rows.values() if depth[row.id] == level] for level in range(max(depth.values()) + 1)]
