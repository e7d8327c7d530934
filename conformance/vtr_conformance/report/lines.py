"""conformance.jsonl: JSON lines for a program."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..results import SCHEMA, Report, strict


def write_report(report: Report, folder: Path) -> Path:
    """Write `conformance.jsonl`: a line a result, then a line a split that was ranked, then the verdict."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "conformance.jsonl"
    lines: list[dict[str, Any]] = [strict(asdict(result)) for result in report.results]
    lines += [{"schema": SCHEMA, "retrieval": asdict(entry)} for entry in report.retrieval]
    last = {name: value for name, value in report.as_json().items() if name not in ("results", "retrieval")}
    lines.append(last)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path
