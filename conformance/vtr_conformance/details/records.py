"""The figures of a report that no gate judges, as plain data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vtr_runtime.manifest import Precision

# Of cosines that a report keeps of a host, and draws of a split.
MAX_PAIRS = 1000


@dataclass(frozen=True)
class Wanted:
    """What a report is to show beside the gates; `command` is told in it."""

    modules: bool = True  # errors by PyTorch module
    speed: bool = True
    command: str = ""


@dataclass(frozen=True)
class About:
    """What was checked, where and when."""

    model: str
    precision: str
    space: str
    variant: str
    manifest_sha256: str  # of manifest.json, which holds every core file's
    made_with: dict[str, str]  # library versions that made the bundle
    machine: dict[str, Any]  # as vtr_runtime.machine describes it
    date: str  # UTC, ISO 8601
    command: str  # empty where none was given: called from Python


@dataclass(frozen=True)
class ModuleError:
    """How far a PyTorch module's output in the graph's own types is from the same in float64, over its norm."""

    graph: str
    module: str
    error: float
    operators: int  # of the graph that were traced from this module


@dataclass(frozen=True)
class GraphOperators:
    """Operators of a graph: as exported, and as ONNX Runtime rewrites it when it loads it for the CPU.

    `found` counts attentions, LayerNorms and activations that stand in one piece; `expected` what PyTorch calls, None
    without a checkpoint. `rewritten` is None where ONNX Runtime does not load the graph."""

    graph: str
    exported: dict[str, int]
    found: dict[str, int]
    expected: dict[str, int] | None = None
    rewritten: dict[str, int] | None = None


@dataclass(frozen=True)
class Latency:
    """The median time of one call of a graph with `batch` rows."""

    host: str
    backend: str
    precision: Precision
    graph: str
    batch: int
    times: int  # how often it was timed
    p50_ms: float


@dataclass(frozen=True)
class ScorePairs:
    """Cosines of captions with clips: the reference's and a host's, in the same order, at most MAX_PAIRS."""

    host: str
    backend: str
    precision: Precision
    reference: tuple[float, ...]
    found: tuple[float, ...]


@dataclass(frozen=True)
class Details:
    """`notes` say, a sentence each, what could not be measured and why."""

    about: About
    modules: tuple[ModuleError, ...] = ()
    operators: tuple[GraphOperators, ...] = ()
    latencies: tuple[Latency, ...] = ()
    scores: tuple[ScorePairs, ...] = ()
    notes: tuple[str, ...] = ()


def changed_kinds(before: dict[str, int], after: dict[str, int]) -> list[tuple[str, int, int]]:
    """Kinds whose number differs, with both numbers; what came in first."""
    kinds = [kind for kind in {**after, **before} if before.get(kind, 0) != after.get(kind, 0)]
    counted = [(kind, before.get(kind, 0), after.get(kind, 0)) for kind in kinds]
    return sorted(counted, key=lambda row: (row[1] - row[2], row[0]))
