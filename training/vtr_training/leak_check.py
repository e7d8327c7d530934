"""Does a second stage score a pair by the pair alone? Where it does not, the ground truth can leak into the ranking.

A released evaluation pooled each gallery video with the caption at the video's own index, its ground truth; nothing
but the right pair profits (T-MASS, CVPR 2024, as found by its readers). Such a score changes once the gallery is
permuted, or once videos or captions are gone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .embed import EmbeddedSplit, Tokens
from .second_stage import PairScorer

LIMIT = 1e-4  # a pair in another batch differs in its last bits
DEFAULT_TOP_K = 10

DUAL_ENCODER = "leak check: nothing can leak: a score is the product of two embeddings that are made apart"

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class LeakCheck:
    """How much the scores of the same pairs differ between the whole split and changed ones."""

    pairs: int  # 0 for a dual encoder
    differences: dict[str, float]  # change -> largest difference; NaN where a score is gone

    @property
    def found(self) -> bool:
        return bool(self._changed)

    @property
    def sentence(self) -> str:
        if not self.pairs:
            return DUAL_ENCODER
        if not self.found:
            return f"leak check: {self.pairs} pairs keep their scores with {', '.join(self.differences)}"
        changes = ", ".join(f"by {value:.2g} with {name}" for name, value in self._changed.items())
        return (
            f"the second stage's score of a pair changes ({changes}), so it sees more than the pair and may see the "
            "ground truth; mend it before you believe its figures"
        )

    @property
    def _changed(self) -> dict[str, float]:
        return {name: value for name, value in self.differences.items() if not value <= LIMIT}

    def to_json(self) -> dict[str, Any]:
        differences = {name: value if isfinite(value) else None for name, value in self.differences.items()}
        return {"found": self.found, "pairs": self.pairs, "differences": differences}


def check_leak(score: PairScorer, split: EmbeddedSplit, wanted: NDArray[np.bool_]) -> LeakCheck:
    """Score the pairs of `wanted` [M, N] in the split as it is, with a permuted gallery, without a third of the videos,
    and without a third of the captions."""
    texts, videos = (np.arange(count) for count in wanted.shape)
    changes: dict[str, tuple[Rows, Rows]] = {
        "a permuted gallery": (texts, _all_moved(len(videos))),
        "a third of the videos gone": (texts, _two_thirds(len(videos))),
        "a third of the captions gone": (_two_thirds(len(texts)), videos),
    }
    whole = score(split, wanted)
    differences = {}
    for name, (some_texts, some_videos) in changes.items():
        part = np.ix_(some_texts, some_videos)
        again = score(take(split, some_texts, some_videos), wanted[part])
        change = abs(again - whole[part])[wanted[part]]
        differences[name] = float(change.max(initial=0.0))
    return LeakCheck(int(wanted.sum()), differences)


def take(split: EmbeddedSplit, texts: Rows, videos: Rows) -> EmbeddedSplit:
    """The captions and clips of these rows, in their order; a caption whose clip is not among them has the owner -1."""
    places = np.full(len(split.clips), -1)
    places[videos] = np.arange(len(videos))
    tokens = split.tokens
    if tokens is not None:
        words, weights = tokens.words[texts], tokens.word_weights[texts]
        tokens = Tokens(words, weights, tokens.frames[videos], tokens.frame_mask[videos])
    return replace(
        split,
        clips=tuple(split.clips[video] for video in videos.tolist()),
        video=split.video[videos],
        text=split.text[texts],
        owners=places[split.owners[texts]],
        tokens=tokens,
    )


def _all_moved(count: int) -> Rows:
    """A random order in which nothing keeps its place: one cycle."""
    cycle = np.random.default_rng(0).permutation(count)
    order = np.empty_like(cycle)
    order[cycle] = np.roll(cycle, 1)
    return order


def _two_thirds(count: int) -> Rows:
    return np.sort(np.random.default_rng(1).permutation(count)[: count - count // 3])
