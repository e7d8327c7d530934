"""The second stage on a split: only the first stage's top K of each query are scored by words and frames."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from vtr_export.model.retrieval import RetrievalModel
from vtr_runtime.errors import ConfigError
from vtr_runtime.rescoring import second_stage, top_k

from .embed import EmbeddedSplit, evaluating
from .evaluate import Evaluation
from .rankings import Ranking, raw_ranking

PairScorer = Callable[[EmbeddedSplit, NDArray[np.bool_]], NDArray[np.float32]]
"""(split of M captions and N clips, wanted [M, N]) -> scores [M, N], NaN where not wanted."""


def evaluate_second_stage(model: RetrievalModel, split: EmbeddedSplit, k: int) -> Evaluation:
    """What `second_stage_ranking` is worth."""
    return second_stage_ranking(model, split, k).evaluate(split.clips, split.owners)


def second_stage_ranking(model: RetrievalModel, split: EmbeddedSplit, k: int) -> Ranking:
    """Reorder each query's top `k` by first stage + weight * second stage, captions and clips alike.

    `split` was embedded with tokens. ConfigError for a model without a second stage."""
    raw = raw_ranking(split)
    pairs = second_stage_scores(model, split, top_pairs(raw, k))
    weight = model.config.rerank.weight

    def reorder(first: NDArray[np.float64], second: NDArray[np.float32]) -> NDArray[np.float64]:
        top = top_k(first, k)
        return second_stage(first, np.take_along_axis(second, top, axis=1), top, weight)

    title = f"Second stage: the first stage's top {k} reordered"
    return Ranking("second-stage", title, reorder(raw.forward, pairs), reorder(raw.backward, pairs.T))


def top_pairs(raw: Ranking, k: int) -> NDArray[np.bool_]:
    """bool [M, N]: the clip is among the caption's top k, or the caption among the clip's."""
    wanted = np.zeros(raw.forward.shape, np.bool_)
    np.put_along_axis(wanted, top_k(raw.forward, k), True, axis=1)
    np.put_along_axis(wanted.T, top_k(raw.backward, k), True, axis=1)
    return wanted


def second_stage_scores(model: RetrievalModel, split: EmbeddedSplit, wanted: NDArray[np.bool_]) -> NDArray[np.float32]:
    """The model's second stage for the pairs of `wanted` [M, N], one caption at a time: float32 [M, N], NaN elsewhere.

    ConfigError for a model without a second stage, or a split that was embedded without tokens."""
    if model.rerank is None:
        raise ConfigError("the model has no second stage (rerank.kind is none); leave out --top-k, or train one")
    if split.tokens is None:
        raise ConfigError("the second stage needs words and frames; embed the split with tokens=True")
    device, tokens = model.logit_scale.device, split.tokens
    frames, mask = torch.from_numpy(tokens.frames).to(device), torch.from_numpy(tokens.frame_mask).to(device)
    scores = np.full(wanted.shape, np.nan, np.float32)
    with evaluating(model):
        for row in np.flatnonzero(wanted.any(axis=1)).tolist():
            of_text = (split.text, tokens.words, tokens.word_weights)
            text, words, weights = (torch.from_numpy(part[row : row + 1]).float().to(device) for part in of_text)
            videos = torch.from_numpy(np.flatnonzero(wanted[row])).to(device)
            found = model.rerank(text, words, weights, frames[videos].float(), mask[videos])
            scores[row, wanted[row]] = found[0].float().cpu().numpy()
    return scores
