"""What a host gave, against what was expected -> a Result."""

from __future__ import annotations

from vtr_runtime.stages import Gate, stage_of

from .comparators import compare
from .hosts.base import Arrays, Host
from .places import Labels, describe
from .results import Result


def judge(
    host: Host,
    stage: str,
    case: str,
    expected: Arrays,
    actual: Arrays,
    *,
    gate: Gate | None = None,
    labels: Labels | None = None,
) -> Result:
    """Compare by the stage's gate for the host's precision, or by another one; `labels` name the rows."""
    known = stage_of(stage)
    gate = gate or known.gate(host.precision)
    found = compare(gate.comparator, expected, actual, gate.limit, axes=len(known.axes))
    return Result(
        host=host.name,
        backend=host.backend,
        stage=stage,
        case=case,
        status="pass" if found.passed else "fail",
        measured=found.measured,
        limit=gate.limit,
        where=describe(found, known.axes, labels or {}),
        hint=known.hint,
        unit=gate.unit,
        precision=host.precision,
    )


def not_run(host: Host, stage: str, case: str, why: str) -> Result:
    return Result(host.name, host.backend, stage, case, "not_run", hint=why, precision=host.precision)


def raised(host: Host, stage: str, case: str, error: Exception) -> Result:
    """The host raised where it should have answered: its case failed, not the run."""
    known = stage_of(stage)
    gate = known.gate(host.precision)
    verdict = (None, gate.limit, str(error), known.hint, gate.unit, host.precision)
    return Result(host.name, host.backend, stage, case, "fail", *verdict)
