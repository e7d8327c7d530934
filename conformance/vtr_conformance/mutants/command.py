"""`vtr-conformance mutants`: what it prints, and its exit status."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from vtr_runtime.console import echo_json, note, progress
from vtr_runtime.errors import GateError, UsageError

from . import MUTANTS
from .check import MutantCheck, Outcome
from .mutant import ExportMutant, Mutant
from .table import describe_model, print_outcomes, summary, write_lines, write_page


def check_mutants(
    checkpoint: Path, names: Sequence[str], *, report: Path | None, markdown: Path | None, as_json: bool
) -> int:
    """Check the mutants of these names, or all; print, write, and return the exit status.

    UsageError for a name that there is not."""
    mutants = choose(names)
    with TemporaryDirectory() as scratch:
        check = MutantCheck(checkpoint, Path(scratch), note)
        proof = f"The unmutated export: {check.report.verdict}"
        if any(isinstance(mutant, ExportMutant) and mutant.fp16_without for mutant in mutants):
            proof += f"; in fp16 on the typed graph: {check.check_fp16().verdict}"
        outcomes: list[Outcome] = []
        with progress("mutants", len(mutants)) as bar:
            for outcome in check.check_all(mutants):
                outcomes.append(outcome)
                bar.advance(note=outcome.name)
        manifest = check.sound.manifest
    if report is not None:
        note(f"report: {write_lines(outcomes, report)}")
    if markdown is not None:
        write_page(outcomes, markdown, manifest=manifest, proof=f"{proof}.")
        note(f"page: {markdown}")
    if as_json:
        echo_json({"proof": proof, "outcomes": [outcome.as_json() for outcome in outcomes]})
    else:
        print_outcomes(outcomes, f"mutants of {describe_model(manifest)}")
        click.echo(proof)
        click.echo(summary(outcomes))
    bad = any(outcome.status in ("wrong stage", "missed") for outcome in outcomes)
    return GateError.exit_status if bad else 0


def choose(names: Sequence[str]) -> list[Mutant]:
    """The mutants of these names; all where there are none."""
    known = {mutant.name: mutant for mutant in MUTANTS}
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3) or list(known)
            raise UsageError(f"there is no mutant {name!r}; choose from: {', '.join(near)}")
    return [known[name] for name in dict.fromkeys(names)] or list(MUTANTS)
