"""A split in memory, ready for batches: decoded frames and tokenized captions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vtr_runtime.manifest import FrameSpec, fingerprint
from vtr_runtime.text import Tokenizer

from .frame_cache import CachedFrames, cached_frames
from .jsonl import Clip, data_file, read_clips


@dataclass(frozen=True)
class Split:
    """Frames of the readable clips, and the token ids of all their captions."""

    frames: CachedFrames
    ids: NDArray[np.int32]  # [captions, L] zero-padded
    owners: NDArray[np.int64]  # [captions] the clip that each belongs to

    @cached_property
    def fingerprint(self) -> str:
        """Changes with what is trained on: which clips, in which order, and their captions."""
        clips = [[str(clip.video), clip.start, clip.end, clip.group, clip.captions] for clip in self.frames.clips]
        return fingerprint(clips)

    @cached_property
    def first_captions(self) -> NDArray[np.int64]:
        """[clips] the row of each clip's first caption."""
        return np.searchsorted(self.owners, np.arange(len(self.frames.clips)))


def load_split(spec: Path, name: str, frames: FrameSpec, tokenizer: Tokenizer, *, cache: Path | None = None) -> Split:
    """Decode a split, or find it decoded in `cache` (none: .frames beside the data file), and tokenize it."""
    clips = read_clips(spec, name)
    decoded = cached_frames(clips, frames, cache or data_file(spec).parent / ".frames")
    captions, owners = caption_rows(decoded.clips)
    return Split(decoded, tokenizer.encode(captions), owners)


def caption_rows(clips: Sequence[Clip]) -> tuple[list[str], NDArray[np.int64]]:
    """All captions in order, and the clip [M] that each belongs to."""
    captions = [caption for clip in clips for caption in clip.captions]
    return captions, np.repeat(np.arange(len(clips)), [len(clip.captions) for clip in clips])
