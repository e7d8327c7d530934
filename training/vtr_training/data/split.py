"""A split in memory, ready for batches: decoded frames and tokenized captions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePath

import numpy as np
from numpy.typing import NDArray

from vtr_runtime.errors import DataError
from vtr_runtime.manifest import FrameSpec, fingerprint
from vtr_runtime.parts_of_speech import Tagger
from vtr_runtime.text import Tokenizer

from .clip import DECODE_SECONDS, Clip
from .frame_cache import CachedFrames, cached_frames
from .source import DataSource, read_clips
from .word_weights import cached_word_weights


@dataclass(frozen=True)
class Split:
    """Frames of the readable clips, and the token ids of all their captions."""

    frames: CachedFrames
    ids: NDArray[np.int32]  # [captions, L] zero-padded
    owners: NDArray[np.int64]  # [captions] the clip that each belongs to
    word_weights: NDArray[np.uint8] | None = None  # [captions, L] 0 where masked, 2 for important words, else 1
    features: NDArray[np.float32] | None = None  # [clips, T, D] of a frozen image tower

    @cached_property
    def fingerprint(self) -> str:
        """Changes with what is trained on: which clips, in which order, and their captions."""
        clips = [[str(clip.video), clip.start, clip.end, clip.group, clip.captions] for clip in self.frames.clips]
        return fingerprint(clips)

    @cached_property
    def first_captions(self) -> NDArray[np.int64]:
        """[clips] the row of each clip's first caption."""
        return np.searchsorted(self.owners, np.arange(len(self.frames.clips)))

    @cached_property
    def videos(self) -> NDArray[np.int64]:
        """[clips] equal numbers for clips that are the same part of the same file: they are no negatives."""
        numbers: dict[tuple[Path, float | None, float | None], int] = {}
        keys = [(clip.video.resolve(), clip.start, clip.end) for clip in self.frames.clips]
        return np.array([numbers.setdefault(key, len(numbers)) for key in keys])

    def refuse_without_negatives(self) -> None:
        """DataError where no batch could teach anything."""
        for what, count in (("captions", len(np.unique(self.ids, axis=0))), ("videos", len(np.unique(self.videos)))):
            if count < 2:
                raise DataError(
                    f"all {what} of the training split are the same, so nothing tells pairs apart; add others"
                )


def load_split(
    spec: str | PurePath,
    name: str,
    frames: FrameSpec,
    tokenizer: Tokenizer,
    *,
    cache: Path | None = None,
    tagger: Tagger | None = None,
    seconds: float = DECODE_SECONDS,
) -> Split:
    """Decode a split, or find it decoded in `cache` (none: .frames beside the data set's files), and tokenize it.

    A clip that takes longer than `seconds` to decode counts as unreadable. With a `tagger` each token's weight is told
    from its word's part of speech, once for a data set."""
    clips = read_clips(spec, name)
    folder = cache or DataSource(spec).home / ".frames"
    decoded = cached_frames(clips, frames, folder, seconds=seconds)
    captions, owners = caption_rows(decoded.clips)
    ids = tokenizer.encode(captions)
    weights = None
    if tagger is not None:
        weights = cached_word_weights(captions, ids, tokenizer, tagger, folder)
    return Split(decoded, ids, owners, weights)


def caption_rows(clips: Sequence[Clip]) -> tuple[list[str], NDArray[np.int64]]:
    """All captions in order, and the clip [M] that each belongs to."""
    captions = [caption for clip in clips for caption in clip.captions]
    return captions, np.repeat(np.arange(len(clips)), [len(clip.captions) for clip in clips])
