"""Results, the table for a person, and JSON lines for a program."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from vtr_runtime.console import table

from .stages import STAGES, stage_of

SCHEMA = 1
Status = Literal["pass", "fail", "not_run"]


@dataclass(frozen=True)
class Result:
    """One case on one host. `measured` and `limit` are in the stage's unit; None where nothing was measured."""

    host: str
    backend: str
    stage: str
    case: str
    status: Status
    measured: float | None = None
    limit: float | None = None
    where: str = ""
    hint: str = ""
    schema: int = SCHEMA


@dataclass(frozen=True)
class Retrieval:
    """A whole split, embedded by the reference and by a host."""

    host: str
    backend: str
    split: str
    videos: int
    texts: int
    unreadable: int  # clips that were left out
    recall: dict[str, float]
    reference_recall: dict[str, float]
    identical: int  # queries whose whole ranking is the reference's, ties aside
    meaningful: bool  # the reference retrieves at all: R@1 at least 5 times chance


@dataclass(frozen=True)
class Report:
    results: tuple[Result, ...]
    retrieval: tuple[Retrieval, ...] = ()

    @property
    def passed(self) -> bool:
        """No case failed, and at least one ran."""
        states = [result.status for result in self.results]
        return "fail" not in states and "pass" in states

    @property
    def verdict(self) -> str:
        states = [result.status for result in self.results]
        counts = f"{states.count('pass')} passed, {states.count('fail')} failed, {states.count('not_run')} not run"
        first = next((result for result in self.results if result.status == "fail"), None)
        if first is None:
            return f"{'every gate met' if self.passed else 'nothing was checked'}: {counts}"
        return f"first stage that moved: {first.stage} ({first.host}, {first.backend}): {counts}"

    def as_json(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "passed": self.passed,
            "verdict": self.verdict,
            "results": [_strict(asdict(result)) for result in self.results],
            "retrieval": [asdict(entry) for entry in self.retrieval],
        }


def _strict(row: dict[str, Any]) -> dict[str, Any]:
    """JSON has no infinity: it becomes the word."""
    return {key: str(value) if value in (float("inf"), float("-inf")) else value for key, value in row.items()}


def write_report(report: Report, folder: Path) -> Path:
    """Write `conformance.jsonl`: a line a result, then a line a split that was ranked, then the verdict."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "conformance.jsonl"
    lines: list[dict[str, Any]] = [_strict(asdict(result)) for result in report.results]
    lines += [{"schema": SCHEMA, "retrieval": asdict(entry)} for entry in report.retrieval]
    lines.append({"schema": SCHEMA, "passed": report.passed, "verdict": report.verdict})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def print_report(report: Report, title: str) -> None:
    """A row a stage and host: how many cases, the largest difference, the limit; then what failed, and where."""
    rows = [row for key in _keys(report.results) if (row := _stage_row(report.results, *key))]
    table(title, ("stage", "host", "cases", "result", "measured", "limit", "unit"), rows)
    for entry in report.retrieval:
        names = list(entry.recall)
        what = f"{entry.split}: {entry.texts} texts, {entry.videos} videos, {entry.unreadable} unreadable"
        columns = (what, *names, "same ranking, ties aside")
        same = f"{entry.identical} of {entry.texts}"
        rows_r: list[Sequence[object]] = [
            ("pytorch", *[f"{entry.reference_recall[name]:.1f}" for name in names], ""),
            (f"{entry.host} {entry.backend}", *[f"{entry.recall[name]:.1f}" for name in names], same),
        ]
        table(
            "retrieval, text to video" + ("" if entry.meaningful else " (too near chance to mean much)"),
            columns,
            rows_r,
        )
    for result in report.results:
        if result.status == "fail":
            text = (
                f"FAILED {result.stage}, case {result.case}: {_number(result.measured)} against {_number(result.limit)}"
            )
            print(f"{text} {result.where}; usual cause: {result.hint}")


def _keys(results: Iterable[Result]) -> list[tuple[str, str, str]]:
    order = {stage.name: i for i, stage in enumerate(STAGES)}
    keys = dict.fromkeys((stage_of(result.stage).name, result.host, result.backend) for result in results)
    return sorted(keys, key=lambda key: order[key[0]])


def _stage_row(results: Iterable[Result], stage: str, host: str, backend: str) -> Sequence[object]:
    mine = [r for r in results if (stage_of(r.stage).name, r.host, r.backend) == (stage, host, backend)]
    ran = [r for r in mine if r.status != "not_run"]
    if not ran:
        return (stage, f"{host} {backend}", len(mine), "NOT RUN", "", "", mine[0].hint)
    worst = max(ran, key=lambda r: (r.status == "fail", r.measured or 0.0))
    outcome = "FAIL" if worst.status == "fail" else "pass"
    unit = stage_of(stage).unit
    return (stage, f"{host} {backend}", len(ran), outcome, _number(worst.measured), _number(worst.limit), unit)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"
