"""Figures -> what is printed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import click
from contestant import CLIPS, FRAMES, MODEL, Precision
from machine import SIDE
from results import COMPARED_WITH, Figure, best_other

from vtr_runtime.console import table
from vtr_runtime.machine import machine_lines


def print_machine(machine: Mapping[str, Any], rates: Mapping[str, float]) -> None:
    for line in machine_lines(dict(machine)):
        click.echo(line)
    for precision, rate in rates.items():
        click.echo(f"matrix product of {SIDE} x {SIDE} by torch.mm, {precision}: {rate / 1e9:.0f} GFLOP/s")
    click.echo()


def print_video(rows: Sequence[Figure], rates: Mapping[str, float], flops: int, settings: str) -> None:
    """Time, frames per second, the comparison, and the share of the machine's product."""
    count = CLIPS * FRAMES
    lines = []
    for row in rows:
        wide: Precision = row.contestant.precision
        rate = rates.get(COMPARED_WITH[wide])
        share = f"{flops * count / (row.ms / 1000) / rate:.0%} of {COMPARED_WITH[wide]}" if rate else "-"
        frames = f"{1000 * count / row.ms:.0f}"
        lines.append((*_who(row), *_time(row), frames, _times(rows, row), share, _difference(row), *_start(row)))
    columns = ("video tower", "", "ms", "spread", "frames/s", "x best other", "share", "difference", "ready, s", "MB")
    table(f"{MODEL}, {CLIPS} clips of {FRAMES} frames, mean pooling; {settings}", columns, lines)
    click.echo(
        "Peers take float pixels [24, 3, 224, 224], already normalised, and give 24 features: open_clip's own module, "
        "its dynamo export with the batch fixed,\nHugging Face's tower by optimum (which leaves the projection out). "
        "Ours takes uint8 frames [2, 12, 224, 224, 3] and their mask,\nnormalises and pools, all inside the clock.\n"
        f"'x best other': the fastest that is not ours at that precision over this row; int8 over the fastest bf16. "
        f"'share': {flops / 1e9:.2f} GFLOP a frame,\n2 [P 3p^2 d + L (12 N d^2 + 2 N^2 d) + d D] with P = 49 patches, "
        "p = 32, N = 50 tokens, d = 768, L = 12 layers, D = 512, over the machine's product;\nthe same work "
        "is assumed of all, though ours leaves out what cannot reach the output. 'difference': of unit embeddings, "
        "from PyTorch eager fp32.\n"
    )


def print_text(rows: Sequence[Figure], captions: int, settings: str) -> None:
    """The query and the captions side by side, each with the gain over PyTorch eager padded to the full length."""
    lines = []
    for query in (row for row in rows if row.workload == "query"):
        many = next(row for row in rows if row.workload == "captions" and row.contestant == query.contestant)
        cells = [cell for row in (query, many) for cell in (*_time(row), _gain(rows, row))]
        worst = max(query, many, key=lambda row: row.difference)
        lines.append((*_who(query), *cells, _difference(worst), *_start(query)))
    columns = ("text tower, DITS of 10 steps", "", "query, ms", "spread", "gain", f"{captions} captions, ms", "spread")
    table(f"{MODEL}; {settings}", (*columns, "gain", "difference", "ready, s", "MB"), lines)
    click.echo(
        "From words to unit embeddings, tokenizer included. The query has 10 tokens with start and end; the captions "
        "5 to 26, on average 11.6, as in MSR-VTT.\n'padded': to 77 tokens, as CLIP's own code does; 'trimmed': to the "
        "longest of the batch. 'gain': PyTorch eager padded in fp32 over this row.\n"
    )


def print_missing(missing: Sequence[tuple[str, str, str]]) -> None:
    for kind, name, reason in missing:
        click.echo(f"NOT RUN: {kind}, {name}: {reason}")


def _who(row: Figure) -> tuple[str, str]:
    return ("ours: " if row.contestant.ours else "") + row.contestant.name, row.contestant.precision


def _time(row: Figure) -> tuple[str, str]:
    digits = 1 if row.ms < 100 else 0
    return f"{row.ms:.{digits}f}", f"{row.least_ms:.{digits}f}-{row.most_ms:.{digits}f}"


def _times(rows: Sequence[Figure], row: Figure) -> str:
    best = best_other(rows, row.workload, row.contestant.precision)
    return f"{best / row.ms:.2f}" if best is not None else "-"


def _gain(rows: Sequence[Figure], row: Figure) -> str:
    for other in rows:
        who = other.contestant
        if other.workload == row.workload and who.engine == "eager" and who.precision == "fp32":
            return f"{other.ms / row.ms:.2f}"
    return "-"


def _difference(row: Figure) -> str:
    return "-" if math.isnan(row.difference) else f"{row.difference:.0e}"


def _start(row: Figure) -> tuple[str, str]:
    return f"{row.ready_seconds:.0f}", str(row.resident_mb)
