"""The table for a person at a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from vtr_runtime.console import printable, table

from ..failures import sentence
from ..results import REFERENCE, Report, Retrieval
from .summary import StageSummary, summarise


def print_report(report: Report, title: str) -> None:
    """A row a stage and host: how many cases, the largest difference, the limit; then what failed, and where."""
    rows = map(_stage_row, summarise(report.results))
    table(title, ("stage", "host", "cases", "result", "measured", "limit", "unit"), rows)
    for entry in report.retrieval:
        _print_retrieval(entry)
    for result in report.failed:
        print(printable(f"FAILED {sentence(result)}"))


def _print_retrieval(entry: Retrieval) -> None:
    names = list(entry.recall)
    what = f"{entry.split}: {entry.texts} texts, {entry.videos} videos, {entry.unreadable} unreadable"
    columns = (
        what,
        *names,
        "median rank",
        "same ranking",
        "other top 10",
        "other top 1",
        "of them outside",
    )
    reference = [f"{entry.reference_recall[name]:.1f}" for name in names]
    found = [f"{entry.recall[name]:.1f} ({entry.recall[name] - entry.reference_recall[name]:+.1f})" for name in names]
    same = f"{entry.identical} of {entry.texts}"
    moved = (f"{entry.median_rank:g}", same, entry.top10_changed, entry.flips, entry.flips_outside)
    rows: list[Sequence[object]] = [
        (REFERENCE, *reference, f"{entry.reference_median_rank:g}", "", "", "", ""),
        (f"{entry.host} {entry.backend} {entry.precision}", *found, *moved),
    ]
    title = f"retrieval, text to video; outside: the reference's best two are more than {entry.noise:.2g} apart"
    table(title + ("" if entry.meaningful else " (too near chance to mean much)"), columns, rows)


def _stage_row(found: StageSummary) -> Sequence[object]:
    worst = found.worst
    if found.status == "not_run":
        return (found.stage, found.on, found.not_run, "NOT RUN", "", "", worst.hint)
    outcome = "FAIL" if found.status == "fail" else "pass"
    return (found.stage, found.on, found.ran, outcome, _number(worst.measured), _number(worst.limit), worst.unit)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"
