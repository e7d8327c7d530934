"""Rounding shapes up to a few buckets, where every new shape costs: kernels chosen anew, memory kept, a CUDA graph.

Rows that are added repeat the last one, so that a mask is never all false; tokens that are added are zeros, which
change no embedding. Both are cut off again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BackendError
from ..manifest import GraphSpec
from .base import Arrays

# The axes whose rows do not know of each other: they may be split, repeated and cut.
ROW_AXES = ("batch", "candidates")
# By axis name: a size.
Axes = dict[str, int]


@dataclass(frozen=True)
class Buckets:
    """The sizes that a graph is run with, rising. More rows than the largest are run in parts; more tokens as they
    are."""

    rows: tuple[int, ...]
    tokens: tuple[int, ...]

    def fit(self, axes: Axes) -> Axes:
        """The smallest sizes at hand that hold these."""
        return {axis: _at_least(size, self.rows if axis in ROW_AXES else self.tokens) for axis, size in axes.items()}


def _at_least(size: int, sizes: tuple[int, ...]) -> int:
    return next((known for known in sizes if known >= size), size)


def powers_of_two(largest: int, smallest: int = 1) -> tuple[int, ...]:
    """Rising to `largest`, which is among them whatever it is: 1, 2, 4, 8, 12."""
    sizes = []
    while smallest < largest:
        sizes.append(smallest)
        smallest *= 2
    return (*sizes, largest)


def check_feed(name: str, spec: GraphSpec, feed: Arrays) -> Axes:
    """The sizes of a graph's dynamic axes in a feed. BackendError for a feed that the graph does not take.

    Engines differ in what they refuse: some cast, some give empty outputs, some run a missing input from the memory of
    the last call."""
    if unknown := set(feed) - {given.name for given in spec.inputs}:
        raise BackendError(f"{name}: the graph has no input {', '.join(sorted(unknown))}")
    axes: Axes = {}
    for wanted in spec.inputs:
        given = feed.get(wanted.name)
        takes = f"the graph takes {wanted.dtype} [{', '.join(map(str, wanted.shape))}]"
        if given is None:
            raise BackendError(f"{name}: input {wanted.name} is missing; {takes}")
        fits = len(given.shape) == len(wanted.shape) and all(
            found > 0 and found == (axes.setdefault(size, found) if isinstance(size, str) else size)
            for found, size in zip(given.shape, wanted.shape, strict=True)
        )
        if not fits:
            raise BackendError(f"{name}: input {wanted.name} has the shape {given.shape}; {takes}")
        if given.dtype != wanted.dtype:
            raise BackendError(f"{name}: input {wanted.name} is {given.dtype}; {takes}")
    return axes


def concrete(shape: tuple[int | str, ...], axes: Axes) -> tuple[int, ...]:
    return tuple(axes[size] if isinstance(size, str) else size for size in shape)


def fill(target: NDArray[Any], given: NDArray[Any], shape: tuple[int | str, ...]) -> None:
    """Write an array into a larger one; `shape` says which of its axes are rows and which are tokens."""
    inside = tuple(slice(size) for size in given.shape)
    if any(isinstance(axis, str) and axis not in ROW_AXES for axis in shape) and target.shape != given.shape:
        target[...] = 0
    target[inside] = given
    if shape and shape[0] in ROW_AXES and len(target) > len(given):
        target[len(given) :] = target[len(given) - 1]


def run_in_buckets(
    spec: GraphSpec, feed: Arrays, axes: Axes, buckets: Buckets, run: Callable[[Arrays, Axes, Axes], Arrays]
) -> Arrays:
    """Run a feed in parts of at most the largest bucket. `run` takes a part, its sizes and those it is to be filled up
    to, and gives outputs of the filled sizes; they are cut and joined."""
    done = [_cut(spec, run(part, sizes, buckets.fit(sizes)), sizes) for part, sizes in split(spec, feed, axes, buckets)]
    if len(done) == 1:
        return done[0]
    rows = {out.name: bool(out.shape) and out.shape[0] in ROW_AXES for out in spec.outputs}
    return {
        name: np.concatenate([part[name] for part in done]) if rows[name] else first for name, first in done[0].items()
    }


def split(spec: GraphSpec, feed: Arrays, axes: Axes, buckets: Buckets) -> Iterator[tuple[Arrays, Axes]]:
    """Parts of a feed whose rows fit the largest bucket, and their sizes; a feed without rows is one part."""
    axis = next((axis for axis in axes if axis in ROW_AXES), None)
    most = buckets.rows[-1] if buckets.rows else 0
    if axis is None or not most or axes[axis] <= most:
        yield feed, axes
        return
    has_rows = {given.name: bool(given.shape) and given.shape[0] == axis for given in spec.inputs}
    for start in range(0, axes[axis], most):
        part = {name: array[start : start + most] if has_rows[name] else array for name, array in feed.items()}
        yield part, {**axes, axis: min(most, axes[axis] - start)}


def _cut(spec: GraphSpec, outputs: Arrays, axes: Axes) -> Arrays:
    shapes = {out.name: concrete(out.shape, axes) for out in spec.outputs}
    return {
        name: np.ascontiguousarray(array[tuple(slice(size) for size in shapes[name])])
        for name, array in outputs.items()
    }


def padded(spec: GraphSpec, feed: Arrays, filled: Axes) -> Arrays:
    """The feed filled up in memory of its own; as it is where nothing is to be added."""
    out: Arrays = {}
    for wanted in spec.inputs:
        given, shape = feed[wanted.name], concrete(wanted.shape, filled)
        if given.shape == shape:
            out[wanted.name] = np.ascontiguousarray(given)
            continue
        out[wanted.name] = np.empty(shape, wanted.dtype)
        fill(out[wanted.name], given, wanted.shape)
    return out
