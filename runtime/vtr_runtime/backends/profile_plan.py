"""Which optimisation profile of an engine runs a shape, and which shapes it is run with. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..engines.record import Shapes
from ..errors import BackendError
from ..manifest import GraphSpec
from .shapes import ROW_AXES, Axes, Buckets, powers_of_two

# By axis name: the smallest and the largest size.
Ranges = dict[str, tuple[int, int]]
TOKEN_STEP = 16


@dataclass(frozen=True)
class ProfilePlan:
    """The profiles of one graph of an engine, in the engine's order."""

    graph: str
    profiles: tuple[Ranges, ...]

    @classmethod
    def of(cls, graph: str, spec: GraphSpec, profiles: Sequence[Shapes]) -> ProfilePlan:
        """From engine.json."""
        return cls(graph, tuple(_ranges(spec, shapes) for shapes in profiles))

    @property
    def largest(self) -> Axes:
        """The sizes that buffers are made for."""
        axes = {axis for ranges in self.profiles for axis in ranges}
        return {axis: max(ranges[axis][1] for ranges in self.profiles) for axis in axes}

    @property
    def buckets(self) -> Buckets:
        """Rows by powers of two and tokens by sixteens, and the profiles' own limits: few enough to capture each."""
        return Buckets(self._sizes(rows=True), self._sizes(rows=False))

    def choose(self, axes: Axes) -> int:
        """The narrowest profile that holds these sizes: its kernels were chosen closest to them."""
        fitting = [place for place, ranges in enumerate(self.profiles) if _holds(ranges, axes)]
        if not fitting:
            asked = ", ".join(f"{axis} {size}" for axis, size in axes.items())
            has = " or ".join(
                ", ".join(f"{axis} {low} to {high}" for axis, (low, high) in ranges.items()) for ranges in self.profiles
            )
            raise BackendError(f"{self.graph}: the engine takes {has}, and {asked} was asked for; build it for that")
        return min(fitting, key=lambda place: math.prod(high for _, high in self.profiles[place].values()))

    def _sizes(self, *, rows: bool) -> tuple[int, ...]:
        found: set[int] = set()
        for ranges in self.profiles:
            for axis, (low, high) in ranges.items():
                if (axis in ROW_AXES) == rows:
                    steps = powers_of_two(high) if rows else range(TOKEN_STEP, high, TOKEN_STEP)
                    found |= {low, high, *(size for size in steps if low < size < high)}
        return tuple(sorted(found))


def _ranges(spec: GraphSpec, shapes: Shapes) -> Ranges:
    return {
        axis: (shapes[given.name][0][place], shapes[given.name][2][place])
        for given in spec.inputs
        for place, axis in enumerate(given.shape)
        if isinstance(axis, str)
    }


def _holds(ranges: Ranges, axes: Axes) -> bool:
    return all(ranges[axis][0] <= size <= ranges[axis][1] for axis, size in axes.items())
