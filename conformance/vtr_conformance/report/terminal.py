"""The table for a person at a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from vtr_runtime.console import table
from vtr_runtime.stages import STAGES, stage_of

from ..failures import sentence
from ..results import Report, Result
from .retrieval import left_out_lines, print_retrieval


def print_report(report: Report, title: str) -> None:
    """A row a stage and host: how many cases, the largest difference, the limit; then what failed, and where."""
    rows = [row for key in _keys(report.results) if (row := _stage_row(report.results, *key))]
    table(title, ("stage", "host", "cases", "result", "measured", "limit", "unit"), rows)
    for entry in report.retrieval:
        print_retrieval(entry)
    for line in left_out_lines(report.left_out):
        print(line)
    for result in report.failed:
        print(f"FAILED {sentence(result)}")


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
