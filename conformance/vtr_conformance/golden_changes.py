"""Two sets of golden vectors -> what is new, gone or changed, and by how much."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vtr_runtime.manifest import file_sha256
from vtr_runtime.stages import FP32_UNIT, STAGES, stage_of

from .cases import Case
from .comparators import compare
from .places import describe
from .results import strict

# What another machine's order of additions makes of the same weights is `within`; the last three change what is proved.
What = Literal["same", "within", "changed", "new", "gone"]
WHATS: tuple[What, ...] = ("same", "within", "changed", "new", "gone")


@dataclass(frozen=True)
class CaseChange:
    """A case that is there before, after, or both. `measured` and `limit` are in the stage's unit for fp32, which both
    sides are; None where a side is missing."""

    case: str
    stage: str
    what: What
    measured: float | None = None
    limit: float | None = None
    unit: str = ""
    where: str = ""

    @property
    def matters(self) -> bool:
        return self.what in ("changed", "new", "gone")

    def as_json(self) -> dict[str, Any]:
        return strict(asdict(self))


def compare_golden(before: Sequence[Case], after: Sequence[Case]) -> list[CaseChange]:
    """Every case of both, in the order of the stages."""
    old, new = ({case.id: case for case in cases} for cases in (before, after))
    found = [_compare_case(case, new.get(case.id)) for case in before]
    found += [CaseChange(case.id, case.stage, "new") for case in after if case.id not in old]
    order = [stage.name for stage in STAGES]
    return sorted(found, key=lambda change: order.index(stage_of(change.stage).name))


def _compare_case(old: Case, new: Case | None) -> CaseChange:
    if new is None:
        return CaseChange(old.id, old.stage, "gone")
    stage = stage_of(old.stage)
    gate = stage.gate("fp32")
    if other := _other_input(old, new):
        return CaseChange(old.id, old.stage, "changed", limit=gate.limit, unit=gate.unit, where=f"another {other}")
    if _equal(old.expected, new.expected):
        return CaseChange(old.id, old.stage, "same", 0.0, gate.limit, gate.unit)
    found = compare(gate.comparator, old.expected, new.expected, gate.limit, axes=len(stage.axes))
    # An output that is new to the case is compared with nothing.
    passed = found.passed and new.expected.keys() == old.expected.keys()
    where = describe(found, stage.axes, new.labels)
    return CaseChange(
        old.id, old.stage, "within" if passed else "changed", found.measured, gate.limit, gate.unit, where
    )


def _other_input(old: Case, new: Case) -> str:
    """What of its inputs is another one, in words; empty where all agree. An input that a model made, such as the
    second stage's embeddings, may differ by what another order of additions makes of it."""
    if old.stage != new.stage:
        return "stage"
    if old.texts != new.texts:
        return "text"
    if (old.media is None) != (new.media is None):
        return "clip"
    if old.media is not None and new.media is not None and file_sha256(old.media) != file_sha256(new.media):
        return "clip"
    left, right = old.arrays or {}, new.arrays or {}
    if left.keys() != right.keys():
        return "set of inputs"
    for name, array in left.items():
        kind, limit = ("max_abs", FP32_UNIT) if array.dtype == np.float32 else ("exact", 0.0)
        if not compare(kind, {name: array}, {name: right[name]}, limit).passed:  # type: ignore[arg-type]
            return f"input {name}"
    return ""


def _equal(left: dict[str, NDArray[Any]], right: dict[str, NDArray[Any]]) -> bool:
    """To the bit; NaNs stand for masked frames."""
    return left.keys() == right.keys() and all(
        array.dtype == right[name].dtype and np.array_equal(array, right[name], equal_nan=array.dtype.kind == "f")
        for name, array in left.items()
    )
