"""How long captions are, and which of them truncation cuts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from vtr_runtime.errors import TextError
from vtr_runtime.manifest import TextSpec

from ..data.clip import Clip
from ..embed import tokenizer_of

CHUNK = 1024  # captions
LONGEST = 4096  # tokens that are counted; a longer caption counts as so long


@dataclass(frozen=True)
class Lengths:
    """In tokens, start and end included, before truncation."""

    median: float
    longest: int
    truncated: int  # captions with more tokens than the context has
    context: int
    shared: int  # captions whose words another clip of the split has too: they have no right answer
    refused: tuple[str, ...] = ()  # one sentence each, for captions that cannot be tokenized

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def measure_lengths(clips: Sequence[Clip], spec: TextSpec) -> Lengths:
    """Of all captions of a split, by the tokenizer of `spec` without its truncation."""
    tokenizer = tokenizer_of(spec.model_copy(update={"context_length": LONGEST}))
    owners: dict[str, set[int]] = {}
    captions, names = [], []
    for number, clip in enumerate(clips):
        for caption in clip.captions:
            captions.append(caption)
            names.append(clip.id)
            owners.setdefault(" ".join(caption.lower().split()), set()).add(number)
    shared = sum(len(owners[" ".join(caption.lower().split())]) > 1 for caption in captions)
    counts: list[int] = []
    refused: list[str] = []
    for start in range(0, len(captions), CHUNK):
        part = captions[start : start + CHUNK]
        try:
            counts += (tokenizer.encode(part) != 0).sum(axis=1).tolist()
        except TextError:
            for name, caption in zip(names[start : start + CHUNK], part, strict=True):
                try:
                    counts.append(int((tokenizer.encode([caption]) != 0).sum()))
                except TextError as error:
                    refused.append(f"{name}: {error}")
    return Lengths(
        median=float(np.median(counts)) if counts else 0.0,
        longest=max(counts, default=0),
        truncated=sum(count > spec.context_length for count in counts),
        context=spec.context_length,
        shared=shared,
        refused=tuple(refused),
    )
