"""Write the generated data set: folder of mp4 files, data.jsonl, README.txt."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from vtr_runtime.console import progress
from vtr_runtime.publish import staged_folder

from ..pool import open_pool
from .clips import HOLD, RATE, write_members
from .pictures import PICTURES, SIZE, render
from .plan import GROUP, DemoSize, PlannedScene, plan_scenes

# So many are written before a pool of processes has started.
FEW = 64

README = """\
A generated data set for text-video retrieval: {train} training, {val} validation and {test} test clips (seed {seed}).

A coloured shape over a grey textured background (brighter to the top, warmer to the left) moves, changes its size or
fades. Each clip is an H.264 mp4 of
{size} x {size} pixels, {frames} frames at {rate} per second, and shows {pictures} pictures.
The four clips of a group (field "group") hold exactly the same pictures in another order: for instance to the right,
to the left, right then left, left then right. A model that does not see order cannot tell them apart: within a group
it is held to a recall at 1 of 1/{group}.
Colour, shape and kind of motion of a validation or test clip never occur together in training. {plain} test clips
stand alone, without a group.

data.jsonl: one clip a line with video (path), captions, split, kind of motion and group.
Made by `vtr-train demo-data`; free of any third-party content.
"""


@dataclass(frozen=True)
class DemoData:
    """What was written."""

    folder: Path
    clips: dict[str, int]  # per split
    bytes: int


def write_demo_data(folder: Path, *, size: DemoSize, seed: int, overwrite: bool = False) -> DemoData:
    """Write the data set to `folder`; it appears there whole or not at all. The same seed gives the same bytes."""
    scenes = plan_scenes(size, seed)
    with staged_folder(folder, overwrite=overwrite) as staged:
        for split in {scene.split for scene in scenes}:
            (staged / split).mkdir()
        _write_clips(staged, scenes, seed)
        (staged / "data.jsonl").write_text("".join(map(_lines, scenes)), encoding="utf-8")
        counts = {
            split: sum(len(scene.clips) for scene in scenes if scene.split == split)
            for split in ("train", "val", "test")
        }
        plain = sum(not scene.grouped for scene in scenes)
        facts = {"seed": seed, "plain": plain, "group": GROUP, "size": SIZE, "pictures": PICTURES}
        text = README.format(**counts, **facts, frames=PICTURES * HOLD, rate=RATE)
        (staged / "README.txt").write_text(text, encoding="utf-8")
        total = sum(path.stat().st_size for path in staged.rglob("*") if path.is_file())
    return DemoData(folder, counts, total)


def _write_clips(folder: Path, scenes: list[PlannedScene], seed: int) -> None:
    write = partial(_write_scene, folder, seed)
    with ExitStack() as stack:
        bar = stack.enter_context(progress("clips", sum(len(scene.clips) for scene in scenes)))
        written: Iterable[int] = map(write, scenes)
        if len(scenes) > FEW:
            written = stack.enter_context(open_pool()).map(write, scenes, chunksize=16)
        for clips in written:
            bar.advance(clips)


def _write_scene(folder: Path, seed: int, scene: PlannedScene) -> int:
    pictures = render(scene.cell, np.random.default_rng([seed, 2, scene.number]))
    write_members(pictures, [folder / clip.path for clip in scene.clips], [clip.member for clip in scene.clips])
    return len(scene.clips)


def _lines(scene: PlannedScene) -> str:
    group = {"group": scene.name} if scene.grouped else {}
    return "".join(
        json.dumps(
            {"video": clip.path, "captions": clip.captions, "split": scene.split, "kind": scene.cell.kind, **group}
        )
        + "\n"
        for clip in scene.clips
    )
