"""Results by stage and host: what a table has a row or a cell for."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vtr_runtime.stages import STAGES, stage_of

from ..results import Result, Status


@dataclass(frozen=True)
class StageSummary:
    """The cases of one stage on one host. `worst` is the result that stands for them: a failure where there is one."""

    stage: str
    host: str
    backend: str
    status: Status
    ran: int
    not_run: int
    worst: Result

    @property
    def on(self) -> str:
        return f"{self.host} {self.backend}"


def summarise(results: Iterable[Result]) -> list[StageSummary]:
    """In the order of the stages, hosts as they come."""
    groups: dict[tuple[str, str, str], list[Result]] = {}
    for result in results:
        groups.setdefault((stage_of(result.stage).name, result.host, result.backend), []).append(result)
    order = {stage.name: place for place, stage in enumerate(STAGES)}
    found = [_summary(*key, mine) for key, mine in groups.items()]
    return sorted(found, key=lambda summary: order[summary.stage])


def share_of_limit(result: Result) -> float:
    """What was measured over its limit: passed up to 1. Infinite where nothing may differ and something does."""
    if result.measured is None:
        return math.inf if result.status == "fail" else 0.0
    if result.limit:
        return result.measured / result.limit
    return 0.0 if result.measured == 0 else math.inf


def _summary(stage: str, host: str, backend: str, mine: Sequence[Result]) -> StageSummary:
    ran = [result for result in mine if result.status != "not_run"]
    if not ran:
        return StageSummary(stage, host, backend, "not_run", 0, len(mine), mine[0])
    worst = max(ran, key=lambda result: (result.status == "fail", result.measured or 0.0))
    return StageSummary(stage, host, backend, worst.status, len(ran), len(mine) - len(ran), worst)
