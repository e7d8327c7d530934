"""Outcomes -> a table at the terminal, JSON Lines, and a page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from vtr_runtime.console import table
from vtr_runtime.manifest import Manifest
from vtr_runtime.publish import staged_file

from .check import Outcome

STATUSES = ("caught", "wrong stage", "missed", "not applicable")
COLUMNS = ("mutant", "kind", "what is wrong", "stage expected", "found first", "by", "without debug outputs", "outcome")


def summary(outcomes: Sequence[Outcome]) -> str:
    counts = [f"{sum(outcome.status == status for outcome in outcomes)} {status}" for status in STATUSES]
    return f"{len(outcomes)} mutants: {', '.join(counts)}"


def print_outcomes(outcomes: Sequence[Outcome], title: str) -> None:
    table(title, COLUMNS, map(_cells, outcomes))
    for outcome in outcomes:
        if outcome.status in ("wrong stage", "missed"):
            words = outcome.why or f"{outcome.found} was blamed: {outcome.case} {outcome.where}"
            print(f"NOT CAUGHT {outcome.name}: {words}")


def write_lines(outcomes: Sequence[Outcome], folder: Path) -> Path:
    """mutants.jsonl, a line a mutant; the folder is made where it is not there."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "mutants.jsonl"
    with staged_file(path) as staged:
        staged.write_text("".join(json.dumps(outcome.as_json()) + "\n" for outcome in outcomes), encoding="utf-8")
    return path


def write_page(outcomes: Sequence[Outcome], path: Path, *, manifest: Manifest, proof: str) -> None:
    """The table as Markdown, with what it was made on."""
    rows = [_row(COLUMNS), _row(["---"] * len(COLUMNS)), *(_row(_cells(outcome)) for outcome in outcomes)]
    page = PAGE.format(summary=summary(outcomes), model=describe_model(manifest), proof=proof, rows="\n".join(rows))
    with staged_file(path) as staged:
        staged.write_text(page, encoding="utf-8")


def describe_model(manifest: Manifest) -> str:
    vision = manifest.model["backbone"]["vision"]
    rerank = manifest.rerank.kind if manifest.rerank is not None else "none"
    temporal = manifest.model["temporal"]["kind"]
    return (
        f"{manifest.name} (width {vision['width']}, {vision['layers']} layers, {manifest.frames.count} frames of "
        f"{manifest.frames.size} x {manifest.frames.size}), temporal head {temporal}, alignment "
        f"{manifest.sampler.summary}, second stage {rerank}"
    )


def _cells(outcome: Outcome) -> tuple[str, ...]:
    amount = "" if outcome.measured is None else f"{outcome.measured:.3g} {outcome.unit} (limit {outcome.limit:.3g})"
    expected = " or ".join(outcome.expected)
    state = f"{outcome.status}{': ' if outcome.why else ''}{outcome.why}"
    return (outcome.name, outcome.kind, outcome.mistake, expected, outcome.found, amount, outcome.plain, state)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


PAGE = """# Does the suite find what is wrong?

    vtr-conformance mutants --ckpt best.pt --markdown docs/mutants.md      # this page
    vtr-conformance mutants --ckpt best.pt --only bgr --only batch-leak    # some of them

Each mutant is a host or an export with one mistake that such programs really make. The suite must catch it, and must
blame the stage where the mistake is made; the command ends with 3 otherwise. A host mutant is the runtime with one of
its parts replaced, on the right bundle. An export mutant is a graph traced from a model that was changed after its
golden vectors were made, in a bundle whose hashes fit. A mistake that makes no difference to a model is not applicable,
which is never counted as caught. *Without debug outputs* is the stage that a bundle exported without `--debug-outputs`
shows first: the inner stages are not there to be asked.

{summary}. Model: {model}. {proof}

{rows}
"""
