"""conformance.jsonl: JSON lines for a program."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vtr_runtime.publish import staged_file

from ..results import SCHEMA, Report, strict
from .verdict import one_line


def write_lines(report: Report, path: Path) -> None:
    """A line a result, then a line a split that was ranked, a line of details where there are any, then the verdict."""
    lines: list[dict[str, Any]] = [strict(asdict(result)) for result in report.results]
    lines += [{"schema": SCHEMA, "retrieval": asdict(entry)} for entry in report.retrieval]
    if report.details is not None:
        lines.append({"schema": SCHEMA, "details": strict(asdict(report.details))})
    told = ("results", "retrieval", "details")
    last = {name: value for name, value in report.as_json().items() if name not in told}
    lines.append({**last, "line": one_line(report)})
    with staged_file(path) as staged:
        staged.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
