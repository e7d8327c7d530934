"""A template and what it shows -> one HTML file. Every text is escaped, since captions and file names are anyone's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

HERE = Path(__file__).parent


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


def render(template: Path, **values: Any) -> bytes:
    """HTML in UTF-8. A template may include base.css and import parts.html.j2. What no UTF-8 can hold, such as a file
    name of other bytes, is shown as an escape."""
    environment = Environment(
        loader=FileSystemLoader([template.parent, HERE]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template.name).render(**values).encode("utf-8", "backslashreplace")
