"""`vtr-conformance golden`: what it prints, and its exit status."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from vtr_runtime.bundle import GOLDEN, open_bundle
from vtr_runtime.console import echo_json, note, table
from vtr_runtime.errors import GateError
from vtr_runtime.publish import check_output
from vtr_runtime.stages import stage_of

from .cases import read_golden
from .golden_bundle import make_golden, write_bundle
from .golden_changes import WHATS, CaseChange, compare_golden


def compare_with_new(bundle: Path, checkpoint: Path, output: Path | None, *, as_json: bool) -> int:
    """Print the difference; publish `output` where one is given. The exit status."""
    if output is not None:
        check_output(output)
    opened = open_bundle(bundle)
    before = read_golden(opened.file(GOLDEN), opened)
    with TemporaryDirectory() as scratch:
        folder = Path(scratch) / "golden"
        names = make_golden(opened, checkpoint, folder)
        after = read_golden(folder / Path(GOLDEN).name)
        changes = compare_golden(before.cases, after.cases)
        size = sum((folder / name).stat().st_size for name in names)
        if output is not None:
            write_bundle(opened, folder, names, output)
    status = GateError.exit_status if any(change.matters for change in changes) and output is None else 0
    if as_json:
        cases = [change.as_json() for change in changes]
        echo_json({"bytes": size, "before": before.made_by, "after": after.made_by, "cases": cases})
        return status
    _print_changes(changes, f"golden vectors of {bundle}, {len(after.cases)} cases in {size / 1e6:.1f} MB made now")
    _print_makers(before.made_by, after.made_by)
    if output is not None:
        click.echo(f"{output} has the new golden vectors; {bundle} stays as it was")
        click.echo(f"next: vtr-conformance run {output} --ckpt {checkpoint} --report {output / 'reports'}")
    elif status:
        note(f"to take them: vtr-conformance golden {bundle} --ckpt {checkpoint} --write -o NEW")
    return status


def _print_changes(changes: Sequence[CaseChange], title: str) -> None:
    stages = dict.fromkeys(stage_of(change.stage).name for change in changes)
    rows = []
    for stage in stages:
        mine = [change for change in changes if stage_of(change.stage).name == stage]
        counts = [sum(change.what == what for change in mine) for what in WHATS]
        worst = max(mine, key=lambda change: change.measured or 0.0)
        most = "" if worst.measured is None else f"{worst.measured:.3g} {worst.unit}"
        rows.append((stage, *(count or "" for count in counts), most))
    table(title, ("stage", *WHATS, "largest difference"), rows)
    for change in changes:
        if change.matters:
            amount = "" if change.measured is None else f" by {change.measured:.3g} {change.unit}"
            limit = "" if change.measured is None else f" (limit {change.limit:.3g})"
            click.echo(f"{change.what} {change.case}{amount}{limit} {change.where}".rstrip())


def _print_makers(before: Mapping[str, str], after: Mapping[str, str]) -> None:
    for name in sorted(before.keys() | after.keys()):
        if before.get(name) != after.get(name):
            click.echo(f"made by {name} {before.get(name, 'unknown')}, now {after.get(name, 'unknown')}")
