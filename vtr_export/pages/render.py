"""A template and what it shows -> one HTML file. Every text is escaped, since captions and file names are anyone's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

HERE = Path(__file__).parent


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
