"""Do the videos decode, and how fast?"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from vtr_runtime.manifest import FrameSpec

from ..data.clip import Clip
from ..data.frame_cache import read_all


@dataclass(frozen=True)
class Decoded:
    tried: int
    of: int  # clips that have a video
    unreadable: tuple[str, ...]  # one sentence each
    damaged: tuple[str, ...]  # ids of clips that gave frames and warnings
    per_second: float  # once the decoding processes have started

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def try_decoding(clips: Sequence[Clip], spec: FrameSpec, *, sample: int | None, seconds: float) -> Decoded:
    """Decode `sample` of the clips, spread over the list, or all (None); each may take `seconds`."""
    count = len(clips) if sample is None else min(sample, len(clips))
    chosen = [clips[place] for place in np.linspace(0, len(clips) - 1, count).round().astype(int).tolist()]
    began, counted = time.perf_counter(), count
    unreadable, damaged = [], []
    for number, (clip, found) in enumerate(zip(chosen, read_all(chosen, spec, seconds=seconds), strict=True)):
        if number == 0 and count > 1:
            began, counted = time.perf_counter(), count - 1
        if isinstance(found, str):
            unreadable.append(found)
        elif found.warnings:
            damaged.append(clip.id)
    taken = max(time.perf_counter() - began, 1e-6)
    return Decoded(count, len(clips), tuple(unreadable), tuple(damaged), counted / taken)
