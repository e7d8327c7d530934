"""What was found: a result a case, a summary a split, and the verdict."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from vtr_runtime.manifest import Precision
from vtr_runtime.stages import NO_PROOF, place_in_flow

from .details.records import Details

SCHEMA = 1
# The host that is the model itself: what it passes says nothing about an export.
REFERENCE = "pytorch"
Status = Literal["pass", "fail", "not_run"]


@dataclass(frozen=True)
class Result:
    """One case on one host. `measured` and `limit` are in the stage's unit; None where nothing was measured."""

    host: str
    backend: str
    stage: str
    case: str
    status: Status
    measured: float | None = None
    limit: float | None = None
    where: str = ""
    hint: str = ""
    unit: str = ""
    precision: Precision = "fp32"  # what the host computes in
    schema: int = SCHEMA


@dataclass(frozen=True)
class WorstQuery:
    """The query whose best item is another one on the host, and the reference minds most: a caption or a clip's name,
    and two candidates."""

    query: str
    reference_best: str
    host_best: str
    reference_scores: tuple[float, float]  # of these two, in this order
    host_scores: tuple[float, float]


@dataclass(frozen=True)
class Direction:
    """One way of searching, text to video or video to text. Margins are in the reference's scores."""

    queries: int
    gallery: int
    figures: dict[str, float]  # R@1, R@5, R@10 in percent, MdR, MnR
    reference: dict[str, float]  # the same of the reference
    identical: int  # queries whose whole ranking is the reference's, ties aside
    flips: int  # queries whose best item is another one
    flips_outside: int  # of them those where the reference holds the two further apart than the noise
    largest_flip: float  # that margin, at the flip where it is largest
    top10_changed: int  # queries whose first ten items are another set
    top10_outside: int  # of them those where an item that left and one that came are further apart than the noise
    largest_top10: float
    tau: float | None  # mean over the queries of Kendall's tau-b of the reference's first hundred; None: no order
    worst_tau: float | None
    worst: WorstQuery | None  # None where no query has another best item


@dataclass(frozen=True)
class Retrieval:
    """A whole split, embedded by the reference and by a host."""

    host: str
    backend: str
    precision: Precision
    data: str  # the name of the data set; "generated"
    split: str
    videos: int
    texts: int
    unreadable: int  # clips that were left out
    noise: float  # a margin within which errors of this size can swap two items
    meaningful: bool  # the reference retrieves at all: R@1, text to video, at least 5 times chance
    rsum: float  # R@1 + R@5 + R@10 of both directions
    reference_rsum: float
    t2v: Direction
    v2t: Direction
    # Scores (reference, host) of a caption and a clip: all where they are few, else a sample.
    pairs: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class HostEntry:
    """What a host says of itself."""

    name: str
    backend: str
    precision: Precision
    version: str
    note: str | None


@dataclass(frozen=True)
class Report:
    """`precision` is the bundle's; `left_out` names the clips of the split that cannot be read; `details`
    are what is shown and not judged, where they were asked for."""

    results: tuple[Result, ...]
    retrieval: tuple[Retrieval, ...] = ()
    precision: Precision = "fp32"
    hosts: tuple[HostEntry, ...] = ()
    left_out: tuple[str, ...] = ()
    details: Details | None = None

    @property
    def failed(self) -> list[Result]:
        """What failed, in the order of the stages: the first is the one at fault."""
        found = [result for result in self.results if result.status == "fail"]
        return sorted(found, key=lambda result: place_in_flow(result.stage, result.case))

    @property
    def passed(self) -> bool:
        """No case failed, and at least one that a graph answered ran."""
        return not self.failed and any(map(_proves, self.results))

    @property
    def unproved(self) -> str:
        """What of the bundle's precision no host has shown, in words; empty where all is."""
        needed = ("aligned", "video_embedding", *(("retrieval",) if self.precision == "int8" else ()))
        shown = {r.stage for r in self.results if _proves(r) and r.precision == self.precision}
        missing = [stage for stage in needed if stage not in shown]
        return f"{self.precision} is not proved: no host that computes in it passed {missing[0]}" if missing else ""

    @property
    def verdict(self) -> str:
        states = [result.status for result in self.results]
        counts = f"{states.count('pass')} passed, {states.count('fail')} failed, {states.count('not_run')} not run"
        if first := next(iter(self.failed), None):
            return f"first stage that moved: {first.stage} ({first.host}, {first.backend}): {counts}"
        if not self.passed:
            return f"nothing was checked: {counts}"
        left_out = f"left out: {len(self.left_out)} of the split's clips" if self.left_out else ""
        return "; ".join(part for part in (f"every gate met: {counts}", self.unproved, left_out) if part)

    def as_json(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "passed": self.passed,
            "verdict": self.verdict,
            "unproved": self.unproved,
            "left_out": list(self.left_out),
            "results": [strict(asdict(result)) for result in self.results],
            "retrieval": [asdict(entry) for entry in self.retrieval],
            "hosts": [asdict(host) for host in self.hosts],
            **({} if self.details is None else {"details": strict(asdict(self.details))}),
        }


def _proves(result: Result) -> bool:
    return result.status == "pass" and result.host != REFERENCE and result.stage not in NO_PROOF


def strict(row: dict[str, Any]) -> dict[str, Any]:
    """JSON has no infinity: it becomes the word, also further inside."""
    return {key: _strict(value) for key, value in row.items()}


def _strict(value: Any) -> Any:
    if isinstance(value, dict):
        return strict(value)
    if isinstance(value, (list, tuple)):
        return [_strict(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
