"""`vtr-conformance compare`: tables for a person at a terminal."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import click

from vtr_runtime.console import printable, table

from ..bundle_diff import BundleDiff
from ..bundle_diff.records import Moved

LONGEST = 44  # letters of a value; the end of a hash tells nothing


def print_diff(diff: BundleDiff) -> None:
    """What differs, from the manifest to the rankings; then whether one may be searched with the other, and the
    verdict as the last line."""
    if diff.fields:
        fields = [(f.name, _short(f.a), _short(f.b), "contract" if f.contract else "") for f in diff.fields]
        table("manifest", ("entry", "A", "B", "breaks"), fields)
    if diff.sizes:
        table("files that differ, bytes", ("file", "A", "B"), [(s.name, _size(s.a), _size(s.b)) for s in diff.sizes])
    for change in diff.operators:
        kinds = [("all", change.a, change.b), *change.kinds]
        table(f"operators of {change.graph}.onnx", ("kind", "A", "B"), kinds)
    _print_moved("golden vectors: what the two PyTorch models gave for the same inputs, gates of fp32", diff.golden)
    _print_moved(f"on A's golden inputs now, by {diff.host}, A's gates ({diff.precision})", diff.found)
    _print_reports(diff)
    for line in (*diff.notes, *diff.undone):
        click.echo(printable(line))
    click.echo(diff.searchable)
    click.echo(printable(diff.verdict))


def _print_moved(title: str, found: Sequence[Moved]) -> None:
    if not found:
        return
    columns = ("stage", "cases", "result", "measured", "limit", "unit", "smallest cosine", "where")
    rows = [
        (
            moved.stage,
            moved.cases,
            "pass" if moved.passed else "BEYOND",
            f"{moved.measured:.3g}",
            f"{moved.limit:.3g}",
            moved.unit,
            "" if moved.cosine is None else f"{moved.cosine:.7f}",
            moved.where,
        )
        for moved in found
    ]
    table(title, columns, rows)


def _print_reports(diff: BundleDiff) -> None:
    a, b = diff.reports
    if a is None and b is None:
        return
    worst_a, worst_b = ({} if side is None else side.worst for side in (a, b))
    rows: list[Sequence[object]] = [("verdict", *("" if side is None else side.verdict for side in (a, b)))]
    rows += [(stage, _figure(worst_a.get(stage)), _figure(worst_b.get(stage))) for stage in {**worst_a, **worst_b}]
    table("what their own reports say, worst of each stage", ("", "A", "B"), rows)


def _short(value: Any) -> str:
    text = "-" if value is None else value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def _size(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"
