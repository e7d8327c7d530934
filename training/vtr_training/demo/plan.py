"""Which clips there are: a frozen list that depends on the seed and the sizes alone, before anything is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from vtr_runtime.errors import ConfigError

from .captions import COLOURS, KINDS, MEMBER_NAMES, MEMBERS, SHAPES, Cell, captions

GROUP = len(MEMBERS)
TRAIN_CAPTIONS = 4  # phrasings per training clip; the other splits have one


@dataclass(frozen=True)
class DemoSize:
    """How many clips; groups are of four. No cell (colour, shape, kind) is in more than one split or part."""

    train_clips: int = 3200
    val_groups: int = 24
    test_groups: int = 40
    test_plain: int = 24

    def __post_init__(self) -> None:
        if self.train_clips < GROUP or self.train_clips % GROUP:
            raise ConfigError(f"{self.train_clips} training clips are not whole groups of {GROUP}; give a multiple")
        for name in ("val_groups", "test_groups", "test_plain"):
            count = getattr(self, name)
            if count < 0 or count % len(KINDS):
                raise ConfigError(f"{name}={count} cannot be shared by the {len(KINDS)} kinds; give a multiple")
        if self.val_groups + self.test_groups + self.test_plain > len(COLOURS) * len(SHAPES) * len(KINDS) // 2:
            raise ConfigError("more than half of the colour, shape and kind cells are held out; ask for fewer clips")


@dataclass(frozen=True)
class PlannedClip:
    member: int  # index into MEMBERS
    path: str  # relative to the data folder
    captions: tuple[str, ...]


@dataclass(frozen=True)
class PlannedScene:
    """Clips made of the same twelve pictures; `grouped` when all four members are there."""

    number: int
    split: str
    cell: Cell
    clips: tuple[PlannedClip, ...]

    @property
    def grouped(self) -> bool:
        return len(self.clips) == GROUP

    @property
    def name(self) -> str:
        return f"{self.split}-{self.number:04d}"


def plan_scenes(size: DemoSize, seed: int) -> list[PlannedScene]:
    """The whole data set. Training cells are used in turn, so that each is seen equally often."""
    train, val, test, plain = _split_cells(size, np.random.default_rng([seed, 0]))
    rng = np.random.default_rng([seed, 1])
    every = tuple(range(GROUP))
    wanted = [("train", train[i % len(train)], every) for i in range(size.train_clips // GROUP)]
    wanted += [("val", cell, every) for cell in val]
    wanted += [("test", cell, every) for cell in test]
    wanted += [("test", cell, (int(rng.integers(GROUP)),)) for cell in plain]
    return [_plan_scene(number, split, cell, members, rng) for number, (split, cell, members) in enumerate(wanted)]


def _plan_scene(number: int, split: str, cell: Cell, members: Sequence[int], rng: np.random.Generator) -> PlannedScene:
    clips = []
    for member in members:
        name = f"{cell.colour}-{cell.shape}-{MEMBER_NAMES[cell.kind][member]}-{number:04d}.mp4"
        phrasings = captions(cell, member, TRAIN_CAPTIONS if split == "train" else 1, rng)
        clips.append(PlannedClip(member, f"{split}/{name}", phrasings))
    return PlannedScene(number, split, cell, tuple(clips))


def _split_cells(size: DemoSize, rng: np.random.Generator) -> tuple[list[Cell], list[Cell], list[Cell], list[Cell]]:
    """Train, val, test groups, test singles; each kind gives the same number of cells to each.

    Held-out cells are drawn again until training still sees every colour and every shape with every kind."""
    needed = {(word, kind) for word in (*COLOURS, *SHAPES) for kind in KINDS}
    counts = [size.val_groups // len(KINDS), size.test_groups // len(KINDS), size.test_plain // len(KINDS)]
    while True:
        parts: tuple[list[Cell], list[Cell], list[Cell], list[Cell]] = ([], [], [], [])
        for kind in KINDS:
            pairs = list(product(COLOURS, SHAPES))
            cells = [Cell(colour, shape, kind) for colour, shape in (pairs[i] for i in rng.permutation(len(pairs)))]
            for part, count in zip(parts[1:], counts, strict=True):
                part += cells[:count]
                del cells[:count]
            parts[0].extend(cells)
        seen = {(word, cell.kind) for cell in parts[0] for word in (cell.colour, cell.shape)}
        if seen == needed:
            rng.shuffle(parts[0])
            return parts
