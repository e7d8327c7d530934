"""The table for a person at a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from vtr_runtime.console import printable, table

from ..failures import sentence
from ..results import Report
from .retrieval import left_out_lines, print_retrieval
from .summary import StageSummary, summarise


def print_report(report: Report, title: str) -> None:
    """A row a stage and host: how many cases, the largest difference, the limit; then what failed, and where."""
    rows = map(_stage_row, summarise(report.results))
    table(title, ("stage", "host", "cases", "result", "measured", "limit", "unit"), rows)
    for entry in report.retrieval:
        print_retrieval(entry)
    for line in left_out_lines(report.left_out):
        print(line)
    for result in report.failed:
        print(printable(f"FAILED {sentence(result)}"))


def _stage_row(found: StageSummary) -> Sequence[object]:
    worst = found.worst
    if found.status == "not_run":
        return (found.stage, found.on, found.not_run, "NOT RUN", "", "", worst.hint)
    outcome = "FAIL" if found.status == "fail" else "pass"
    return (found.stage, found.on, found.ran, outcome, _number(worst.measured), _number(worst.limit), worst.unit)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"
