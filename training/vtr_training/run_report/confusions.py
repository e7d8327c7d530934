"""Which clips a model takes for another: mined hard negatives and the queries that it ranks worst."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vtr_runtime.errors import DataError
from vtr_runtime.metrics import ranks

from ..data.clip import Clip
from ..data.frame_cache import CachedFrames
from ..data.split import caption_rows
from ..evaluate import TIE


@dataclass(frozen=True)
class Confusion:
    """A caption, its own clip, and the wrong clip that scores best for it."""

    caption: str
    right: Clip
    wrong: Clip
    right_score: float  # cosines
    wrong_score: float
    rank: float  # of the right clip; the mean rank among ties
    hardness: float  # d_ij of NegNCE
    right_frames: NDArray[np.uint8]  # [n, S, S, 3], n at most 3: first, middle and last of the sampled ones
    wrong_frames: NDArray[np.uint8]

    @property
    def margin(self) -> float:
        """How far the right clip is ahead; negative where the wrong one wins."""
        return self.right_score - self.wrong_score


@dataclass(frozen=True)
class Mistakes:
    """For each of M captions: float64 [M], and `wrong` int64 [M]."""

    wrong: NDArray[np.int64]  # the wrong clip that scores best
    right_score: NDArray[np.float64]
    wrong_score: NDArray[np.float64]
    rank: NDArray[np.float64]
    hardness: NDArray[np.float64]  # above 0: a hard negative

    def by_hardness(self) -> NDArray[np.int64]:
        """Captions, first the one whose wrong clip is furthest ahead of the right one, or closest behind it."""
        return np.argsort(self.right_score - self.wrong_score, kind="stable")

    def by_rank(self) -> NDArray[np.int64]:
        """Captions, the largest rank first."""
        return np.argsort(-self.rank, kind="stable")


def find_mistakes(
    scores: NDArray[np.float64], owners: NDArray[np.int64], videos: NDArray[np.int64] | None = None
) -> Mistakes:
    """Scores [M, N] of captions and clips, `owners` [M] the right clip of each caption.

    Clips that have the same number in `videos` [N] are one and the same and never each other's hard negative; none:
    all differ. DataError where a caption has no wrong clip. Ranks count a caption's own clip alone as right.

    Hardness is NegNCE's marginal similarity at margin 0 (DMAE, ACM MM 2023), for the best wrong clip j of caption i:

        d_ij = max(0, s_ij - s_i) + max(0, s_ij - s_j)

    s_i is the caption's score with its own clip, s_j the clip's best score with a caption of its own."""
    rows = np.arange(len(scores))
    relevant = owners[:, None] == np.arange(scores.shape[1])
    videos = np.arange(scores.shape[1]) if videos is None else videos
    same = videos[owners][:, None] == videos
    if same.all(axis=1).any():
        raise DataError("all clips of the split are the same video, so there is no wrong one; add others")
    wrong = np.where(same, -np.inf, scores).argmax(axis=1)
    right_score, wrong_score = scores[rows, owners], scores[rows, wrong]
    clip_score = np.where(relevant, scores, -np.inf).max(axis=0)
    hardness = np.maximum(0, wrong_score - right_score) + np.maximum(0, wrong_score - clip_score[wrong])
    rank = ranks(scores, relevant, tolerance=TIE).mean
    return Mistakes(wrong, right_score, wrong_score, rank, hardness)


def show(
    mistakes: Mistakes, order: NDArray[np.int64], frames: CachedFrames, owners: NDArray[np.int64], count: int
) -> list[Confusion]:
    """The first `count` of the captions in `order`, one for each right clip, with frames to look at."""
    clips = frames.clips
    captions, _ = caption_rows(clips)
    first = dict.fromkeys(int(owners[row]) for row in order)
    rows = [int(next(row for row in order if owners[row] == owner)) for owner in list(first)[:count]]

    def confusion(row: int) -> Confusion:
        right, wrong = int(owners[row]), int(mistakes.wrong[row])
        return Confusion(
            captions[row],
            clips[right],
            clips[wrong],
            float(mistakes.right_score[row]),
            float(mistakes.wrong_score[row]),
            float(mistakes.rank[row]),
            float(mistakes.hardness[row]),
            three_frames(frames.pixels[right], frames.mask[right]),
            three_frames(frames.pixels[wrong], frames.mask[wrong]),
        )

    return [confusion(row) for row in rows]


def three_frames(pixels: NDArray[np.uint8], mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """First, middle and last of the true frames of [T, S, S, 3]; fewer where there are fewer."""
    real = np.flatnonzero(mask)
    return np.asarray(pixels[list(_ends_and_middle(real.tolist()))])


def _ends_and_middle(rows: Sequence[int]) -> dict[int, None]:
    return dict.fromkeys((rows[0], rows[len(rows) // 2], rows[-1]))
