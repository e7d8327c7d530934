"""How well scores retrieve on a split: both ways, and within groups beside what an order-blind model can reach."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vtr_runtime.errors import ConfigError
from vtr_runtime.metrics import Direction, Retrieval, group_video_to_text, ranks, retrieval

from .data.clip import Clip

# Cosines this close are ties: the same frames added up in another order differ in the last bits, which is no knowledge.
TIE = 1e-5


@dataclass(frozen=True)
class GroupResult:
    """Recall at 1 when the gallery is the query's own group; shares of 1."""

    kind: str
    queries: int  # captions
    t2v_r1: float
    v2t_r1: float
    order_blind: float  # what a model reaches for which the clips of a group are all the same

    def to_json(self) -> dict[str, Any]:
        return {"queries": self.queries, "t2v": self.t2v_r1, "v2t": self.v2t_r1, "order_blind": self.order_blind}


@dataclass(frozen=True)
class Evaluation:
    retrieval: Retrieval
    groups: tuple[GroupResult, ...]  # per kind, then "all"; empty without groups
    v2t_caption_groups: Direction | None = None  # CLIP4Clip's rule; None where every video has one caption

    @property
    def group_r1(self) -> float | None:
        """Text to video recall at 1 within groups, over all kinds."""
        return self.groups[-1].t2v_r1 if self.groups else None

    def value(self, metric: str) -> float:
        """One number to choose a checkpoint by; shares of 1 (Rsum: of 6)."""
        r1 = self.retrieval.t2v.recall[1] / 100
        if metric == "t2v_r1":
            return r1
        if metric == "rsum":
            return self.retrieval.rsum / 100
        if self.group_r1 is None:
            raise ConfigError(f"validation.metric {metric!r} needs groups and the split has none; set it to rsum")
        return (r1 + self.group_r1) / 2

    def summary(self) -> dict[str, float]:
        """What a log line keeps."""
        kinds = {f"group_r1_{group.kind}": group.t2v_r1 for group in self.groups}
        recalls = {"t2v_r1": self.retrieval.t2v.recall[1], "v2t_r1": self.retrieval.v2t.recall[1]}
        return {**recalls, "rsum": self.retrieval.rsum, **kinds}

    @property
    def directions(self) -> dict[str, Direction]:
        """What a table shows, by the names of `to_json`."""
        both = {"t2v": self.retrieval.t2v, "v2t": self.retrieval.v2t}
        return both if self.v2t_caption_groups is None else {**both, "v2t_caption_groups": self.v2t_caption_groups}

    def to_json(self) -> dict[str, Any]:
        result = self.retrieval.to_json()
        if self.v2t_caption_groups is not None:
            result["v2t_caption_groups"] = self.v2t_caption_groups.to_json()
        if self.groups:
            result["within_groups_r1"] = {group.kind: group.to_json() for group in self.groups}
        return result


def evaluate_embeddings(
    clips: Sequence[Clip], video: NDArray[np.float32], text: NDArray[np.float32], owners: NDArray[np.int64]
) -> Evaluation:
    """Rank unit embeddings: video [N, D] of `clips`, text [M, D] of their captions, `owners` [M] the clip of each."""
    return evaluate_scores(clips, cosines(text, video), owners)


def cosines(text: NDArray[np.float32], video: NDArray[np.float32]) -> NDArray[np.float64]:
    """Unit text [M, D] and video [N, D] -> [M, N], in float64."""
    return text.astype(np.float64) @ video.astype(np.float64).T


def relevance(owners: NDArray[np.int64], videos: int) -> NDArray[np.bool_]:
    """bool [M, N]. A caption is relevant to its own clip alone, also where another has the same words (as the field
    counts)."""
    true: NDArray[np.bool_] = owners[:, None] == np.arange(videos)
    return true


def evaluate_scores(
    clips: Sequence[Clip],
    scores: NDArray[np.float64],
    owners: NDArray[np.int64],
    *,
    backward: NDArray[np.float64] | None = None,
    tolerance: float = TIE,
) -> Evaluation:
    """Rank scores [M, N] of M captions against the N clips; `backward` [N, M] scores the way back where it is not their
    transpose. Scores within `tolerance` of each other are ties."""
    relevant = relevance(owners, len(clips))
    back = scores.T if backward is None else backward
    by_group = group_video_to_text(back.T, owners, tolerance=tolerance) if len(owners) > len(clips) else None
    return Evaluation(
        retrieval(scores, relevant, backward=back, tolerance=tolerance),
        _within_groups(clips, scores, back, relevant, owners, tolerance),
        by_group,
    )


def _within_groups(
    clips: Sequence[Clip],
    scores: NDArray[np.float64],
    backward: NDArray[np.float64],
    relevant: NDArray[np.bool_],
    owners: NDArray[np.int64],
    tolerance: float,
) -> tuple[GroupResult, ...]:
    sizes: dict[str | None, int] = {}
    for clip in clips:
        sizes[clip.group] = sizes.get(clip.group, 0) + 1
    chosen = np.array([clip.group is not None and sizes[clip.group] > 1 for clip in clips])
    if not chosen.any():
        return ()
    names = np.array([clip.group or "" for clip in clips])
    kinds = np.array([clip.kind or "other" for clip in clips])
    texts, videos = np.flatnonzero(chosen[owners]), np.flatnonzero(chosen)
    there, back = np.ix_(texts, videos), np.ix_(videos, texts)
    true = relevant[there]
    same = names[owners[texts]][:, None] == names[videos]
    t2v = ranks(scores[there], true, candidates=same, tolerance=tolerance).found_within(1)
    v2t = ranks(backward[back], true.T, candidates=same.T, tolerance=tolerance).found_within(1)
    blind = 1 / same.sum(axis=1)
    text_kinds, video_kinds = kinds[owners[texts]], kinds[videos]

    def result(kind: str, of_text: NDArray[np.bool_], of_video: NDArray[np.bool_]) -> GroupResult:
        means = (float(values.mean()) for values in (t2v[of_text], v2t[of_video], blind[of_text]))
        return GroupResult(kind, int(of_text.sum()), *means)

    per_kind = [result(kind, text_kinds == kind, video_kinds == kind) for kind in dict.fromkeys(video_kinds.tolist())]
    return (*per_kind, result("all", np.ones(len(texts), bool), np.ones(len(videos), bool)))
