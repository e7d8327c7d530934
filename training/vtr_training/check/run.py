"""The whole check, in order: annotations, videos, leaks, captions, decoding, cost."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vtr_runtime.errors import VtrError
from vtr_runtime.manifest import FrameSpec

from ..data.clip import DECODE_SECONDS, Clip
from ..data.source import DataSource, SplitClips, shortfalls
from ..data.stored import verify_shards
from ..model_config import model_config
from ..recipe import Recipe
from .cost import Cost, measure_cost
from .decoding import Decoded, try_decoding
from .leaks import Shared, find_shared
from .lengths import Lengths, measure_lengths


@dataclass(frozen=True)
class CheckedSplit:
    clips: SplitClips
    lengths: Lengths | None
    decoded: Decoded | None

    def to_json(self) -> dict[str, Any]:
        found, documented = self.clips, self.clips.documented
        return {
            "videos": len(found.clips),
            "with_video": len(found.clips) - len(found.absent),
            "captions": found.captions,
            "held_out": len(found.held_out),
            "documented": None
            if documented is None
            else {"videos": documented.videos, "captions": documented.captions},
            "absent": sorted(found.absent),
            "faults": list(found.faults),
            "caption_tokens": self.lengths.to_json() if self.lengths else None,
            "decoded": self.decoded.to_json() if self.decoded else None,
        }


@dataclass
class CheckReport:
    """`problems` are what was asked for and is not so; `notes` are good to know. One sentence each."""

    spec: str
    title: str
    frames: FrameSpec
    splits: dict[str, CheckedSplit] = field(default_factory=dict)
    shared: list[Shared] = field(default_factory=list)
    cost: Cost | None = None
    steps: int = 0
    train: str = "train"
    cache_bytes: int = 0
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def steps_a_pass(self) -> dict[str, int]:
        """Steps of one pass over the training clips, and over their captions."""
        if self.cost is None or self.train not in self.splits:
            return {}
        found = self.splits[self.train].clips
        there = [clip for clip in found.clips if clip.id not in found.absent]
        captions = sum(len(clip.captions) for clip in there)
        return {"clips": len(there) // self.cost.batch, "captions": captions // self.cost.batch}

    def to_json(self) -> dict[str, Any]:
        return {
            "data": self.spec,
            "protocol": self.title,
            "frames": self.frames.model_dump(mode="json"),
            "splits": {name: split.to_json() for name, split in self.splits.items()},
            "shared": [one.to_json() for one in self.shared],
            "cost": self.cost.to_json() if self.cost else None,
            "steps": self.steps,
            "steps_a_pass": self.steps_a_pass,
            "cache_bytes": self.cache_bytes,
            "problems": self.problems,
            "notes": self.notes,
        }


def check_recipe(
    recipe: Recipe, *, sample: int | None = 24, seconds: float = DECODE_SECONDS, cost: bool = True
) -> CheckReport:
    """Check all splits of the recipe's data. `sample` clips of each are decoded (None: all), each within `seconds`."""
    source = DataSource(recipe.data.spec)
    config = model_config(recipe.model)
    title = source.protocol.title if source.protocol else "generic data"
    report = CheckReport(source.spec.text, title, config.frames, steps=recipe.steps, train=recipe.data.train)
    found = _read(source, report)
    _check_splits(recipe, source, found, report)
    report.shared = find_shared({name: split.clips for name, split in found.items()})
    for shared in report.shared:
        (report.problems if shared.problem else report.notes).append(shared.sentence)
    for name, split in found.items():
        there = [clip for clip in split.clips if clip.id not in split.absent]
        if source.prepared is not None:
            there = _readable(name, there, report)
        lengths = measure_lengths(split.clips, config.text) if split.clips else None
        decoded = None
        if there and sample != 0:
            decoded = try_decoding(there, config.frames, sample=sample, seconds=seconds)
        report.splits[name] = CheckedSplit(split, lengths, decoded)
        _judge_split(name, report.splits[name], report, lenient=source.subset)
    _check_room(recipe, source, report)
    if cost:
        _add_cost(recipe, found.get(recipe.data.train), report)
    return report


def _read(source: DataSource, report: CheckReport) -> dict[str, SplitClips]:
    """The splits that can be read; what is wrong with the others is a problem."""
    found: dict[str, SplitClips] = {}
    for name in source.splits:
        try:
            split = source.split(name)
        except VtrError as error:
            report.problems.append(str(error))
            continue
        if source.spec.name is None:
            absent = frozenset(clip.id for clip in split.clips if not clip.video.is_file())
            split = SplitClips(name, split.clips, absent)
        found[name] = split
    return found


def _check_splits(recipe: Recipe, source: DataSource, found: dict[str, SplitClips], report: CheckReport) -> None:
    """What the recipe trains on and is chosen by must be there."""
    for key, name in (("data.train", recipe.data.train), ("data.val", recipe.data.val)):
        if name not in source.splits:
            try:
                empty = not source.split(name).clips
            except VtrError as error:
                report.problems.append(f"{key}: {error}")
            else:
                if empty:
                    report.problems.append(f"{key}: {source.spec.text} has no clip of the split {name!r}; add some")
    if recipe.data.val == "test":
        report.notes.append("best.pt is chosen on the test split, so its figures there are no test figures")
    if recipe.data.val == recipe.data.train:
        report.problems.append("data.val is the training split; choose best.pt on another one")
    train = found.get(recipe.data.train)
    if train is not None and 0 < len(train.clips) - len(train.absent) < recipe.batches.size:
        there = len(train.clips) - len(train.absent)
        report.problems.append(f"batches.size is {recipe.batches.size} and {there} training clips are there; lower it")
    start = recipe.model.start_from
    if start is not None and not start.is_file():
        report.problems.append(f"model.start_from: {start} is not there; train that model first, or name its best.pt")


def _readable(name: str, clips: list[Clip], report: CheckReport) -> list[Clip]:
    """Those of a prepared split that could be read when it was made; the others are known, and told. None where the
    shards are not what they should be: that is a problem."""
    stored = [clip.stored for clip in clips if clip.stored is not None]
    report.notes += [f"{name}: unreadable when it was prepared: {one.error}" for one in stored if one.error]
    try:
        verify_shards(stored, report.frames)
    except VtrError as error:
        report.problems.append(f"{name}: {error}")
        return []
    return [clip for clip in clips if clip.stored is None or clip.stored.error is None]


def _judge_split(name: str, split: CheckedSplit, report: CheckReport, *, lenient: bool) -> None:
    missing = report.notes if lenient else report.problems
    missing += [f"{name}: {sentence}" for sentence in shortfalls(split.clips)]
    if split.decoded is not None:
        missing += [f"{name}: unreadable: {sentence}" for sentence in split.decoded.unreadable]
        if split.decoded.damaged:
            report.notes.append(f"{name}: {len(split.decoded.damaged)} clip(s) decode with warnings")
    lengths = split.lengths
    if lengths is None:
        return
    report.problems.extend(f"{name}: {sentence}" for sentence in lengths.refused)
    if lengths.truncated:
        share = 100 * lengths.truncated / split.clips.captions
        report.notes.append(
            f"{name}: {lengths.truncated:,} captions ({share:.1f} %) have more than {lengths.context} tokens; what "
            "they say beyond is not seen"
        )
    if lengths.shared:
        report.notes.append(f"{name}: {lengths.shared:,} captions have the same words as one of another clip")


def _check_room(recipe: Recipe, source: DataSource, report: CheckReport) -> None:
    """Decoded frames of the splits that `fit` reads, beside what the disk has left."""
    if source.prepared is not None:
        return
    spec = report.frames
    names = {recipe.data.train, recipe.data.val}
    clips: list[Clip] = [clip for name in names if name in report.splits for clip in report.splits[name].clips.clips]
    report.cache_bytes = len(clips) * spec.count * spec.size * spec.size * 3
    place = recipe.data.cache or (source.home if clips else Path())
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if report.cache_bytes > free:
        report.problems.append(
            f"decoded frames take {report.cache_bytes / 2**30:.1f} GiB and {place} has {free / 2**30:.1f} GiB left; "
            "set data.cache to a folder with room"
        )


def _add_cost(recipe: Recipe, train: SplitClips | None, report: CheckReport) -> None:
    captions = [clip.captions[0] for clip in train.clips[: recipe.batches.size]] if train else []
    try:
        report.cost = measure_cost(recipe, captions or ["a person is talking about something"])
    except (VtrError, RuntimeError) as error:  # PyTorch's own, where memory ends
        report.problems.append(f"no step of this recipe could be run: {str(error).splitlines()[0]}")
