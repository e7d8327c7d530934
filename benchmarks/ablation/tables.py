"""Finished runs -> the tables of docs/ablation.md."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from plan import Row, Section

BASE = "mstdt-a"  # the row that the others are held against
METRICS = {  # column -> where it stands in test.json, and what makes it percent
    "R@1": (("t2v", "R@1"), 1),
    "R@5": (("t2v", "R@5"), 1),
    "MnR": (("t2v", "MnR"), 1),
    "V2T R@1": (("v2t", "R@1"), 1),
    "Rsum": (("Rsum",), 1),
    "order": (("within_groups_r1", "all", "t2v"), 100),
}
AGAINST_BASE = "Rsum"


def write_tables(sections: Sequence[Section], runs: Path, seeds: Sequence[int], path: Path) -> None:
    """One Markdown table a section: mean ± sample deviation over the seeds, on the test split.

    The last figure is the mean ± deviation of the differences to the base of the same seed: seeds share their start,
    and their own spread drops out of it."""
    path.write_text("\n".join(_section(section, runs, seeds) for section in sections), encoding="utf-8")


def _section(section: Section, runs: Path, seeds: Sequence[int]) -> str:
    columns = [section.title, *METRICS, f"{AGAINST_BASE} - base", "trained", "ms/step"]
    lines = [columns, ["---"] * len(columns)]
    for row in section.rows:
        if row.top_k is not None:
            lines.append(_line(f"{row.name}: first stage", row, runs, seeds))
            lines.append(_line(f"{row.name}: second stage", row, runs, seeds, stage="second_stage"))
        else:
            lines.append(_line(row.name, row, runs, seeds))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _line(name: str, row: Row, runs: Path, seeds: Sequence[int], stage: str | None = None) -> list[str]:
    folders = [runs / row.id / str(seed) for seed in seeds]
    tests = [_read(folder / "test.json") for folder in folders]
    found = [test if stage is None else test[stage] for test in tests]
    figures = [_spread(_values(found, name)) for name in METRICS]
    bases = _values([_read(runs / BASE / str(seed) / "test.json") for seed in seeds], AGAINST_BASE)
    changes = [value - base for value, base in zip(_values(found, AGAINST_BASE), bases, strict=True)]
    summaries = [_read(folder / "summary.json") for folder in folders]
    trained = f"{summaries[0]['parameters']['trained'] / 1e6:.2f} M"
    milliseconds = f"{1000 * fmean(summary['seconds_per_step'] for summary in summaries):.0f}"
    return [name, *figures, _spread(changes, "+") if any(changes) else "", trained, milliseconds]


def _values(tests: Sequence[Any], metric: str) -> list[float]:
    keys, factor = METRICS[metric]
    found = []
    for value in tests:
        for key in keys:
            value = value[key]
        found.append(factor * float(value))
    return found


def _spread(values: Sequence[float], sign: str = "") -> str:
    return f"{fmean(values):{sign}.1f}" + (f" ± {stdev(values):.1f}" if len(values) > 1 else "")


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
