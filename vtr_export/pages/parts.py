"""What parts.html.j2 shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


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
