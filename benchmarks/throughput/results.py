"""Rounds of seconds -> the figures of the tables."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import numpy as np
from child import Child
from contestant import Contestant

# An int8 row has no other of its kind to be measured by.
COMPARED_WITH = {"fp32": "fp32", "bf16": "bf16", "int8": "bf16"}


@dataclass(frozen=True)
class Figure:
    """Milliseconds of one contestant at one workload: median, least and most of its rounds' medians."""

    contestant: Contestant
    workload: str
    ms: float
    least_ms: float
    most_ms: float
    ready_seconds: float
    resident_mb: int
    difference: (
        float  # of unit embeddings from PyTorch eager fp32's, the largest of all components; NaN if it was left out
    )

    def to_json(self) -> dict[str, Any]:
        """Without paths, which mean nothing elsewhere."""
        row = asdict(self)
        who = row.pop("contestant")
        row["difference"] = None if math.isnan(self.difference) else self.difference  # JSON has no NaN
        return {key: who[key] for key in ("kind", "name", "precision", "engine", "hint", "ours")} | row


def figures(children: Iterable[Child]) -> list[Figure]:
    """Of all that ran, in their order."""
    ran = [child for child in children if child.rounds and child.ready is not None]
    reference = next((c.ready.outputs for c in ran if _is_reference(c.contestant) and c.ready), None)
    return [_figure(child, workload, reference) for child in ran for workload in child.rounds[0]]


def best_other(rows: Iterable[Figure], workload: str, precision: str) -> float | None:
    """Milliseconds of the fastest contestant that is not ours, at the precision that is compared with this one."""
    wanted = COMPARED_WITH[precision]
    times = [
        row.ms
        for row in rows
        if row.workload == workload and row.contestant.precision == wanted and not row.contestant.ours
    ]
    return min(times, default=None)


def _is_reference(contestant: Contestant) -> bool:
    return contestant.engine == "eager" and contestant.precision == "fp32"


def _figure(child: Child, workload: str, reference: dict[str, Any] | None) -> Figure:
    assert child.ready is not None  # figures() asks for no other
    ready, output = child.ready, child.ready.outputs[workload]
    ms = [1000 * seconds[workload] for seconds in child.rounds]
    difference = float("nan")
    if reference is not None and output.size:
        difference = float(np.abs(output - reference[workload]).max())
    times = (median(ms), min(ms), max(ms))
    return Figure(child.contestant, workload, *times, ready.seconds, ready.resident_mb, difference)
