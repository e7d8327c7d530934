"""A data set, opened: the clips of each split, what is wrong with them, and what the protocol documents.

`read_clips` is the door for whoever trains or evaluates, and refuses what is not whole; `vtr-train check` lists it."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePath

from vtr_runtime.errors import DataError

from .benchmarks.entry import Entry
from .clip import SPLITS, Clip
from .generic import data_file, read_generic
from .prepared import Prepared
from .protocols import PROTOCOLS, Count, Protocol
from .registry import READERS
from .spec import Spec, parse_spec
from .tree import Tree

SHOWN = 5  # of a list in a message


@dataclass(frozen=True)
class SplitClips:
    """A split as it was found. The clips without a video keep their place among `clips`: their path leads nowhere, so
    whoever decodes them lists, skips and counts them like unreadable ones.

    `faults`: one sentence, with file and line, for each annotation that was left out or is doubtful."""

    name: str
    clips: tuple[Clip, ...]
    absent: frozenset[str] = frozenset()  # ids of clips without a video
    faults: tuple[str, ...] = ()
    documented: Count | None = None
    held_out: tuple[Clip, ...] = ()  # training clips that went into val; what is documented counts them too

    @property
    def captions(self) -> int:
        return sum(len(clip.captions) for clip in self.clips)


class DataSource:
    """The data set of a SPEC (see spec.py)."""

    def __init__(self, spec: str | PurePath | Spec) -> None:
        self.spec = spec if isinstance(spec, Spec) else parse_spec(spec)
        self.prepared = Prepared(self.spec.path) if self.spec.is_prepared else None
        name = self.spec.name if self.prepared is None else self.prepared.index.data.name
        self.protocol: Protocol | None = None if name is None else PROTOCOLS.get(name)

    @property
    def home(self) -> Path:
        """The folder beside whose files a cache may lie."""
        return data_file(self.spec.path).parent if self.spec.name is None else self.spec.path

    @property
    def subset(self) -> bool:
        """Whoever named it, now or when it was prepared, goes on with what is there."""
        return self.spec.subset or (self.prepared is not None and self.prepared.index.data.subset)

    @property
    def splits(self) -> tuple[str, ...]:
        """Those that there are, in the order train, val, test."""
        there: Collection[str]
        if self.prepared is not None:
            there = self.prepared.index.splits
        elif self.protocol is None:
            there = {clip.split for clip in self._generic}
        else:
            there = {*self.protocol.splits, *(["val"] if self.spec.held_out else [])}
        return tuple(split for split in SPLITS if split in there)

    def split(self, name: str) -> SplitClips:
        """DataError for a split that the data set has not, and for a file that is absent or damaged."""
        if self.prepared is not None:
            return self._prepared_split(self.prepared, name)
        if self.protocol is None:
            clips = tuple(clip for clip in self._generic if clip.split == name)
            return SplitClips(name, clips)
        if name not in self.splits:
            raise DataError(
                f"{self.spec.text} has no split {name!r}, only {', '.join(self.splits)}"
                + ("; hold some of its training videos out for it with ?held_out=500" if name == "val" else "")
            )
        if name == "val" and self.spec.held_out:
            return self._train_and_held_out[1]
        if name == "train" and self.spec.held_out:
            return self._train_and_held_out[0]
        return self._benchmark(name)

    def _prepared_split(self, prepared: Prepared, name: str) -> SplitClips:
        documented = None if self.protocol is None else self.protocol.splits.get(name)
        held_out: tuple[Clip, ...] = ()
        if prepared.index.data.held_out and name == "train":
            if "val" in prepared.index.splits:
                held_out = prepared.split("val")
            else:
                documented = None  # nothing is there to count it by
        return SplitClips(name, prepared.split(name), documented=documented, held_out=held_out)

    @cached_property
    def _generic(self) -> list[Clip]:
        file = data_file(self.spec.path)
        return read_generic(file, file.parent)

    @cached_property
    def _tree(self) -> Tree:
        return Tree(self.spec.path)

    @cached_property
    def _videos(self) -> Tree:
        return self._tree if self.spec.videos is None else Tree(self.spec.videos)

    def _benchmark(self, name: str) -> SplitClips:
        assert self.spec.name is not None
        assert self.protocol is not None
        entries, faults = _sound(READERS[self.spec.name](self._tree, name))
        clips, absent = [], set()
        for entry in entries:
            found = self._videos.videos(entry.names or (entry.id,))
            if len(found) > 1:
                faults.append(
                    f"{found[0]} and {found[1]} may both be the video of {entry.id}, the first was taken; name the "
                    "folder that is meant with ?videos=DIR"
                )
            if not found:
                absent.add(entry.id)
            video = found[0] if found else self._videos.root / entry.id
            clips.append(Clip(video, entry.captions, name, entry.start, entry.end, id=entry.id, source=entry.source))
        documented = self.protocol.splits[name]
        return SplitClips(name, tuple(clips), frozenset(absent), tuple(faults), documented)

    @cached_property
    def _train_and_held_out(self) -> tuple[SplitClips, SplitClips]:
        """The videos held out are those whose ids hash lowest: the same ones on every machine, in any order."""
        whole = self._benchmark("train")
        ranked = sorted(whole.clips, key=lambda clip: hashlib.sha256(clip.id.encode()).digest())
        out = {clip.id for clip in ranked[: self.spec.held_out]}
        train = tuple(clip for clip in whole.clips if clip.id not in out)
        val = tuple(replace(clip, split="val") for clip in whole.clips if clip.id in out)
        return (
            replace(whole, clips=train, absent=whole.absent - out, held_out=val),
            SplitClips("val", val, whole.absent & out),
        )


def _sound(entries: Iterable[Entry]) -> tuple[list[Entry], list[str]]:
    """Entries that are each once and have captions, none of them empty; and what was left out."""
    kept: dict[str, Entry] = {}
    faults = []
    for entry in entries:
        if entry.id in kept:
            faults.append(f"{entry.place}: {entry.id} stands here twice, also at {kept[entry.id].place}; take one out")
            continue
        captions = tuple(stripped for caption in entry.captions if (stripped := caption.strip()))
        if 0 < len(captions) < len(entry.captions):
            faults.append(f"{entry.place}: {len(entry.captions) - len(captions)} caption(s) of {entry.id} are empty")
        if not captions:
            faults.append(f"{entry.place}: {entry.id} has no caption; find it, or take the id out")
            continue
        kept[entry.id] = replace(entry, captions=captions)
    return list(kept.values()), faults


def read_clips(spec: str | PurePath, split: str | None = None) -> list[Clip]:
    """The clips of one split, or of all, in the order of the files.

    DataError names file and line of what is wrong. A benchmark must be whole: as many videos and captions as its
    protocol documents, unless the SPEC says subset=yes."""
    source = DataSource(spec)
    chosen: list[Clip] = []
    for name in source.splits if split is None else (split,):
        found = source.split(name)
        if source.protocol is not None and source.prepared is None and not source.subset:
            refuse_incomplete(source.spec, found)
        chosen += found.clips
    if not chosen:
        what = "no clip" if split is None else f"no clip of the split {split!r}"
        where = data_file(source.spec.path) if source.spec.name is None else source.spec.text
        raise DataError(f"{where} has {what}; add some, or name a split of {', '.join(source.splits or SPLITS)}")
    return chosen


def shortfalls(found: SplitClips) -> list[str]:
    """One sentence for each way in which a split is not what its protocol documents."""
    said = list(found.faults)
    if found.absent:
        said.append(f"{len(found.absent):,} of {len(found.clips):,} clips have no video: {some(found.absent)}")
    if found.documented is None:
        return said
    clips = (*found.clips, *found.held_out)
    for what, number, documented in (
        ("videos", len(clips), found.documented.videos),
        ("captions", sum(len(clip.captions) for clip in clips), found.documented.captions),
    ):
        if documented is not None and number != documented:
            said.append(f"{number:,} {what} are annotated where {documented:,} are documented")
    return said


def refuse_incomplete(spec: Spec, found: SplitClips) -> None:
    said = shortfalls(found)
    if said:
        more = f" (and {len(said) - 1} more)" if len(said) > 1 else ""
        raise DataError(
            f"{spec.text}, split {found.name}: {said[-1]}{more}; vtr-train check lists it, and subset=yes in the SPEC "
            "goes on with what is there, whose figures are then not comparable"
        )


def some(names: Iterable[str]) -> str:
    """The first few, and how many more."""
    ordered = sorted(names)
    more = f" and {len(ordered) - SHOWN:,} more" if len(ordered) > SHOWN else ""
    return ", ".join(ordered[:SHOWN]) + more
