"""What differs between two bundles, as plain data. A is the one that is known, B the one that is to take its place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vtr_runtime.manifest import Precision

NAMED = 4  # entries of the manifest in the verdict; the table has all


@dataclass(frozen=True)
class Field:
    """An entry of the manifest in both bundles; None where one has it not. `contract`: a host of A that is given B
    would go wrong, or miss something that A gives."""

    name: str
    a: Any
    b: Any
    contract: bool


@dataclass(frozen=True)
class FileSize:
    """Bytes of a core file whose content differs; None where a bundle has it not."""

    name: str
    a: int | None
    b: int | None


@dataclass(frozen=True)
class OperatorChange:
    """Operators of a graph that both have: all of them, and each kind whose number differs."""

    graph: str
    a: int
    b: int
    kinds: tuple[tuple[str, int, int], ...]


@dataclass(frozen=True)
class Moved:
    """A stage in both bundles on the same inputs, by A's gate. `cosine` is the smallest of two vectors, None where
    there are no vectors to compare."""

    stage: str
    cases: int
    passed: bool
    measured: float
    limit: float
    unit: str
    cosine: float | None = None
    where: str = ""


@dataclass(frozen=True)
class Reported:
    """What a bundle's own report says, which nobody vouches for: the verdict, and the worst error of each stage."""

    verdict: str
    worst: dict[str, float]


@dataclass(frozen=True)
class BundleDiff:
    """`golden` compares what the two references gave, `found` what a host gives now, both on A's golden inputs.
    `notes` say what could not be compared because the bundles differ, `undone` what this machine could not run."""

    precision: Precision  # A's, whose gates are taken
    host: str
    same_space: bool
    fields: tuple[Field, ...]
    sizes: tuple[FileSize, ...]
    operators: tuple[OperatorChange, ...]
    golden: tuple[Moved, ...]
    found: tuple[Moved, ...]
    reports: tuple[Reported | None, Reported | None]
    notes: tuple[str, ...]
    undone: tuple[str, ...]

    @property
    def contract(self) -> list[Field]:
        return [field for field in self.fields if field.contract]

    @property
    def beyond(self) -> list[Moved]:
        """Stages that moved by more than A's gates allow, in the order of the data."""
        return [moved for moved in (*self.golden, *self.found) if not moved.passed]

    @property
    def exit_status(self) -> int:
        """3 where the bundles differ in the contract or beyond the gates; 1 where that could not be seen; else 0."""
        return 3 if self.contract or self.beyond else 1 if self.undone else 0

    @property
    def verdict(self) -> str:
        parts = []
        if self.contract:
            names = [field.name for field in self.contract]
            more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
            parts.append(f"another contract: {', '.join(names[:NAMED])}{more}")
        if self.beyond:
            stages = dict.fromkeys(moved.stage for moved in self.beyond)
            parts.append(f"beyond A's gates ({self.precision}): {', '.join(stages)}")
        if parts:
            return "; ".join(parts)
        if self.undone:
            return f"not compared: {'; '.join(self.undone)}"
        return f"the same contract, and within A's gates ({self.precision})"

    @property
    def searchable(self) -> str:
        """Whether an index of one may be searched with queries of the other."""
        if self.same_space:
            return "one space: embeddings of A and B may be searched together"
        return "two spaces: embeddings of A and B may not be searched together; index again with B"
