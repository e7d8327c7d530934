"""What int8 is calibrated on and islands are searched with: real clips and captions, and inputs meant to hurt."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vtr_runtime.console import note
from vtr_runtime.errors import UsageError
from vtr_runtime.manifest import FrameSpec, TextSpec
from vtr_runtime.text import Tokenizer
from vtr_runtime.video import Frames, read_frames

Feed = dict[str, NDArray[Any]]
# Of each calibration set; what is beyond costs time and changes no range.
MAX_SAMPLES = 128
# Parts of a golden clip: each is another input, since its frames stand elsewhere.
PARTS = 12


@dataclass(frozen=True)
class Calibration:
    """Single inputs (batch 1) of the two towers."""

    video: list[Feed]
    text: list[Feed]

    def __post_init__(self) -> None:
        if not self.video or not self.text:
            raise UsageError("the calibration data has no clip or no caption; give data that holds both")


def read_calibration(data: str | Path | None, frames: FrameSpec, tokenizer: Tokenizer) -> Calibration:
    """Clips and captions of a data file's training split (or of all, where it has none), at most MAX_SAMPLES of each;
    with None those that come with the package, which are few and mild: good for a first look, not for a release."""
    clips, texts = _golden(frames) if data is None else _from_data(data, frames)
    captions = list(dict.fromkeys(texts))[:MAX_SAMPLES]
    video = [{"frames": clip.pixels[None], "frame_mask": clip.mask[None]} for clip in clips]
    return Calibration(video, [{"input_ids": trimmed(tokenizer.encode([text]))} for text in captions])


def trimmed(ids: NDArray[np.int32]) -> NDArray[np.int32]:
    """Ids [N, L] without the columns that are zero in every row."""
    used = np.flatnonzero((ids != 0).any(axis=0))
    return ids[:, : int(used[-1]) + 1]


def _from_data(data: str | Path, frames: FrameSpec) -> tuple[list[Frames], list[str]]:
    from vtr_training.data.frame_cache import read_all
    from vtr_training.data.source import DataSource, read_clips

    chosen = read_clips(data, "train" if "train" in DataSource(data).splits else None)
    # Evenly over the file, whose neighbours are often alike.
    places = np.linspace(0, len(chosen) - 1, min(MAX_SAMPLES, len(chosen))).round().astype(int)
    some = [chosen[place] for place in places]
    read = []
    for found in read_all(some, frames):
        if isinstance(found, str):
            note(f"skipped: {found}")
        else:
            read.append(found)
    return read, [caption for clip in some for caption in clip.captions]


def _golden(frames: FrameSpec) -> tuple[list[Frames], list[str]]:
    from ..golden import TEXTS, golden_clips

    read = [part for clip in golden_clips() for part in _parts(clip, frames)]
    words = [text for text in TEXTS if text.strip()]
    return read, [*words, *(f"a video of {text}" for text in words)]


def _parts(clip: Path, frames: FrameSpec) -> Iterator[Frames]:
    """The whole clip, and parts of it that begin at different times."""
    whole = read_frames(clip, frames)
    yield whole
    last = float(np.nanmax(whole.times))
    for start in np.linspace(0.0, 0.7 * last, PARTS, endpoint=False)[1:]:
        yield read_frames(clip, frames, start=float(start))


def stress_inputs(frames: FrameSpec, text: TextSpec) -> Calibration:
    """Inputs that must give finite embeddings in every precision: black, white and noise with every number of valid
    frames, with the last alone and with a hole; captions without a word, of one word and of every length."""
    noise = np.random.default_rng(0).integers(0, 256, (frames.count, frames.size, frames.size, 3), dtype=np.uint8)
    pictures = np.stack([np.zeros_like(noise), np.full_like(noise, 255), noise])
    masks = np.tril(np.ones((frames.count, frames.count), bool))
    last, hole = np.zeros((1, frames.count), bool), np.ones((1, frames.count), bool)
    last[0, -1], hole[0, frames.count // 2] = True, frames.count == 1
    video: list[Feed] = []
    for mask in np.concatenate([masks, last, hole]):
        video.append({"frames": pictures, "frame_mask": np.repeat(mask[None], len(pictures), axis=0)})
    return Calibration(video, [{"input_ids": ids} for ids in _stress_ids(text)])


def _stress_ids(text: TextSpec) -> Iterator[NDArray[np.int32]]:
    """Rows by length: words of random ids, the highest and the lowest id."""
    generator = np.random.default_rng(0)
    for length in (2, 3, 16, text.context_length):
        if length > text.context_length:
            continue
        words = generator.integers(1, text.start_id, (3, length)).astype(np.int32)
        words[1], words[2] = text.start_id - 1, 1
        words[:, 0], words[:, -1] = text.start_id, text.end_id
        yield words
    ends = np.zeros((text.context_length - 1, text.context_length), np.int32)
    for row in range(len(ends)):
        ends[row, 0], ends[row, 1 : row + 1], ends[row, row + 1] = text.start_id, 320, text.end_id
    yield ends
