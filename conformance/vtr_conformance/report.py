"""Results, the table for a person, and JSON lines for a program."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from vtr_runtime.console import table
from vtr_runtime.manifest import Precision

from .stages import BEFORE_THE_GRAPHS, STAGES, stage_of

SCHEMA = 1
# The host that is the model itself: what it passes says nothing about an export.
REFERENCE = "pytorch"
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
    unit: str = ""
    precision: Precision = "fp32"  # what the host computes in
    schema: int = SCHEMA


@dataclass(frozen=True)
class Retrieval:
    """A whole split, embedded by the reference and by a host; text to video."""

    host: str
    backend: str
    precision: Precision
    split: str
    videos: int
    texts: int
    unreadable: int  # clips that were left out
    recall: dict[str, float]  # R@K in percent
    reference_recall: dict[str, float]
    median_rank: float
    reference_median_rank: float
    identical: int  # queries whose whole ranking is the reference's, ties aside
    flips: int  # queries whose best video is another one
    flips_outside: int  # of them those where the reference's best two stand further apart than `noise`
    largest_flip: float  # that margin of the reference's, at the flip where it is largest
    noise: float  # a margin within which errors of this size can swap two videos
    top10_changed: int  # queries whose first ten videos are another set
    meaningful: bool  # the reference retrieves at all: R@1 at least 5 times chance


@dataclass(frozen=True)
class Report:
    """`precision` is the bundle's."""

    results: tuple[Result, ...]
    retrieval: tuple[Retrieval, ...] = ()
    precision: Precision = "fp32"

    @property
    def passed(self) -> bool:
        """No case failed, and at least one that a graph answered ran."""
        return not any(result.status == "fail" for result in self.results) and any(map(_proves, self.results))

    @property
    def unproved(self) -> str:
        """What of the bundle's precision no host has shown, in words; empty where all is."""
        needed = ("aligned", "video_embedding", *(("retrieval",) if self.precision == "int8" else ()))
        shown = {r.stage for r in self.results if _proves(r) and r.precision == self.precision}
        missing = [stage for stage in needed if stage not in shown]
        return f"{self.precision} is not proved: no host that computes in it passed {missing[0]}" if missing else ""

    @property
    def verdict(self) -> str:
        states = [result.status for result in self.results]
        counts = f"{states.count('pass')} passed, {states.count('fail')} failed, {states.count('not_run')} not run"
        failed = [result for result in self.results if result.status == "fail"]
        if failed:
            order = [stage.name for stage in STAGES]
            first = min(failed, key=lambda result: order.index(stage_of(result.stage).name))
            return f"first stage that moved: {first.stage} ({first.host}, {first.backend}): {counts}"
        if not self.passed:
            return f"nothing was checked: {counts}"
        return f"every gate met: {counts}" + (f"; {self.unproved}" if self.unproved else "")

    def as_json(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "passed": self.passed,
            "verdict": self.verdict,
            "unproved": self.unproved,
            "results": [_strict(asdict(result)) for result in self.results],
            "retrieval": [asdict(entry) for entry in self.retrieval],
        }


def _proves(result: Result) -> bool:
    return result.status == "pass" and result.host != REFERENCE and result.stage not in BEFORE_THE_GRAPHS


def _strict(row: dict[str, Any]) -> dict[str, Any]:
    """JSON has no infinity: it becomes the word."""
    return {key: str(value) if value in (float("inf"), float("-inf")) else value for key, value in row.items()}


def write_report(report: Report, folder: Path) -> Path:
    """Write `conformance.jsonl`: a line a result, then a line a split that was ranked, then the verdict."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "conformance.jsonl"
    lines: list[dict[str, Any]] = [_strict(asdict(result)) for result in report.results]
    lines += [{"schema": SCHEMA, "retrieval": asdict(entry)} for entry in report.retrieval]
    last = {"passed": report.passed, "verdict": report.verdict, "unproved": report.unproved}
    lines.append({"schema": SCHEMA, **last})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def print_report(report: Report, title: str) -> None:
    """A row a stage and host: how many cases, the largest difference, the limit; then what failed, and where."""
    rows = [row for key in _keys(report.results) if (row := _stage_row(report.results, *key))]
    table(title, ("stage", "host", "cases", "result", "measured", "limit", "unit"), rows)
    for entry in report.retrieval:
        _print_retrieval(entry)
    for result in report.results:
        if result.status == "fail":
            text = (
                f"FAILED {result.stage}, case {result.case}: {_number(result.measured)} against {_number(result.limit)}"
            )
            print(f"{text} {result.where}; usual cause: {result.hint}")


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
    return (stage, f"{host} {backend}", len(ran), outcome, _number(worst.measured), _number(worst.limit), worst.unit)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"
