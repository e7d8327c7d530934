"""Which clips and which of their captions make the batch of a step: a pure function of the seed and the step.

So nothing has to be kept for an exact resume, and a batch can be had again to look at it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vtr_runtime.errors import ConfigError

from .clip import Clip

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Batch:
    clips: Rows  # [B] indices of clips
    captions: Rows  # [B] which caption of each


class BatchPlan:
    """Batches of `size` different clips. From the step `groups_from` on a batch is made of whole groups."""

    def __init__(self, clips: Sequence[Clip], *, size: int, seed: int, groups_from: int | None = None) -> None:
        if len(clips) < size:
            raise ConfigError(f"batches of {size} cannot be made from {len(clips)} clips; lower batches.size")
        self._size, self._seed, self._groups_from = size, seed, groups_from
        self._captions = np.array([len(clip.captions) for clip in clips])
        self._count = len(clips)
        self._groups = _same_sized_groups(clips, size) if groups_from is not None else np.zeros((0, 1), np.int64)

    def batch(self, step: int) -> Batch:
        """The batch of `step`, counted from 0."""
        if self._groups_from is None or step < self._groups_from:
            rows = self._draw(0, step, self._count, self._size)
        else:
            per_batch = self._size // self._groups.shape[1]
            rows = self._groups[self._draw(1, step - self._groups_from, len(self._groups), per_batch)].reshape(-1)
        chance = np.random.default_rng([self._seed, 2, step])
        return Batch(rows, chance.integers(self._captions[rows]))

    def _draw(self, stream: int, number: int, count: int, size: int) -> Rows:
        """Batch `number` of consecutive shuffled passes over `count` things; what a pass leaves over is dropped."""
        per_pass = count // size
        order = np.random.default_rng([self._seed, stream, number // per_pass]).permutation(count)
        start = number % per_pass * size
        return order[start : start + size]


def _same_sized_groups(clips: Sequence[Clip], size: int) -> Rows:
    """Indices [groups, members] of the groups that have the most common number of clips."""
    members: dict[str, list[int]] = {}
    for row, clip in enumerate(clips):
        if clip.group is not None:
            members.setdefault(clip.group, []).append(row)
    if not members:
        raise ConfigError("batches.groups_from is set and no training clip has a group; leave it out")
    lengths = [len(rows) for rows in members.values()]
    width = max(set(lengths), key=lambda length: (lengths.count(length), length))
    groups = np.array([rows for rows in members.values() if len(rows) == width])
    if size % width or len(groups) < size // width:
        raise ConfigError(
            f"batches of {size} cannot be made of whole groups of {width} ({len(groups)} groups); change batches.size"
        )
    return groups
