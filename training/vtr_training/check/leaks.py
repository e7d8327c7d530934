"""Clips that stand twice, and what two splits have in common."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from vtr_runtime.clips import FileStamp

from ..data.clip import Clip
from ..data.source import some


@dataclass(frozen=True)
class Shared:
    """`names` of the clips of the later split that the earlier one has too. `problem`: test and training are not apart;
    otherwise it is only good to know."""

    what: str
    splits: tuple[str, str]
    names: tuple[str, ...]
    problem: bool

    @property
    def sentence(self) -> str:
        first, second = self.splits
        count = f"{len(self.names):,} clip(s)"
        if first == second:
            return f"{first}: {count} stand twice, as {self.what}: {some(self.names)}"
        return f"{count} of {second} are in {first} too, as {self.what}: {some(self.names)}"

    def to_json(self) -> dict[str, Any]:
        return {"what": self.what, "splits": list(self.splits), "names": list(self.names), "problem": self.problem}


def find_shared(splits: Mapping[str, Sequence[Clip]]) -> list[Shared]:
    """What pairs of splits share: the same part of the same file, another file of the same bytes, or a source that both
    were cut from."""
    digest = _digests([clip.video for clips in splits.values() for clip in clips])
    kinds: tuple[tuple[str, Callable[[Clip], Hashable | None], bool], ...] = (
        ("the same file", lambda clip: (clip.video.resolve(), clip.start, clip.end), True),
        ("another file of the same bytes", lambda clip: (digest.get(clip.video), clip.start, clip.end), True),
        ("another part of the same source", lambda clip: clip.source, False),
    )
    found: list[Shared] = []
    for what, key, problem in kinds:
        for first, second in combinations(splits, 2):
            found += _common(what, key, problem, (first, splits[first]), (second, splits[second]))
    for name, clips in splits.items():
        for what, key, _ in kinds[:2]:
            found += _twice(what, key, name, clips)
            clips = list({kinds[0][1](clip): clip for clip in clips}.values())  # a file is no copy of itself
    return found


def _common(
    what: str,
    key: Callable[[Clip], Hashable | None],
    problem: bool,
    first: tuple[str, Sequence[Clip]],
    second: tuple[str, Sequence[Clip]],
) -> Iterator[Shared]:
    there = {key(clip) for clip in first[1] if _known(key(clip))}
    names = tuple(clip.id for clip in second[1] if key(clip) in there)
    if names:
        yield Shared(what, (first[0], second[0]), names, problem)


def _twice(what: str, key: Callable[[Clip], Hashable | None], name: str, clips: Sequence[Clip]) -> Iterator[Shared]:
    seen: set[Hashable | None] = set()
    names = []
    for clip in clips:
        if _known(key(clip)) and key(clip) in seen:
            names.append(clip.id)
        seen.add(key(clip))
    if names:
        yield Shared(what, (name, name), tuple(names), False)


def _known(key: Hashable | None) -> bool:
    return key is not None and (not isinstance(key, tuple) or key[0] is not None)


def _digests(videos: Sequence[Path]) -> dict[Path, bytes]:
    """Of those videos alone that are as large as another one: so hardly any is read."""
    sizes: dict[int, set[Path]] = {}
    for video in videos:
        stamp = FileStamp.of(video)
        if stamp is not None:
            sizes.setdefault(stamp.size, set()).add(video)
    return {video: _digest(video) for same in sizes.values() if len(same) > 1 for video in same}


def _digest(video: Path) -> bytes:
    with video.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()
