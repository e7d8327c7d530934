"""Losses on a batch of unit embeddings or of scores, as pure functions. Row i of one modality belongs to row i of the
other. `same`, bool [B, B], marks pairs of rows that hold the same video or the same caption: off the diagonal they are
no negatives and are left out."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from vtr_runtime.errors import ConfigError

BSL_TEMPERATURE = 0.05
CHANCE = 1e-6
"""NegNCE's chances stay this far from 0 and 1, as in DMAE's released code."""


def info_nce(scores: Tensor, same: Tensor | None = None) -> Tensor:
    """Symmetric InfoNCE: the mean over both directions of -log softmax_j(s_ij)[i]; a scalar.

    scores: [B, B], rows texts, already multiplied by the logit scale: cosines, or a second stage's.
    Source: DITS (NeurIPS 2024) eq. 2, halved as in CLIP4Clip and X-Pool."""
    logits = _without(scores, same)
    target = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def hard_negatives(scores: Tensor, same: Tensor | None = None, margin: float = 0.0) -> Tensor:
    """bool [B, B]: the negatives (i, j) with max(0, m + s_ij - s_ii) + max(0, m + s_ij - s_jj) > 0, that is those that
    come within the margin of their row's or their column's positive.

    scores: [B, B], not multiplied by a scale. Source: DMAE (arXiv 2309.11082), released code, with m = 0."""
    positive = scores.detach().diagonal()
    ahead = margin + scores.detach()
    hard = (ahead > positive[:, None]) | (ahead > positive[None, :])
    return hard & _negatives(scores, same)


def neg_nce(
    scores: Tensor,
    scale: Tensor | float,
    hard: Tensor,
    same: Tensor | None = None,
    *,
    positive: float = 1.0,
    negative: float = 0.5,
) -> Tensor:
    """NegNCE, the mean over both directions of c_pos mean_i[-log P_ii] + c_neg mean_H[-log(1 - P_ij)]; a scalar.

    scores: [B, B], rows texts; P is the row-wise softmax of scale * scores, held in [1e-6, 1 - 1e-6], so that a chance
    beyond gives no gradient. hard: bool [B, B], the set H (see hard_negatives), of these scores or others; without any
    pair its term is 0. Source: DMAE (arXiv 2309.11082), released code: scale 100, same = None."""
    hard = hard & _negatives(scores, same)
    logits = _without(scale * scores, same)
    directions = []
    for rows, pairs in ((logits, hard), (logits.T, hard.T)):
        chances = rows.softmax(dim=1).clamp(CHANCE, 1.0 - CHANCE)
        pulled = -chances.diagonal().log().mean()
        pushed = (-(1.0 - chances).log()).masked_fill(~pairs, 0.0).sum() / pairs.sum().clamp_min(1)
        directions.append(positive * pulled + negative * pushed)
    return (directions[0] + directions[1]) / 2


def bsl(
    video: Tensor,
    text: Tensor,
    same: Tensor | None = None,
    *,
    temperature: float = BSL_TEMPERATURE,
    teacher: Literal["detached", "live"] = "detached",
    pairing: Literal["own", "swapped", "averaged"] = "own",
    direction: Literal["forward", "reversed"] = "forward",
    threshold: float | None = None,
) -> Tensor:
    """Binary similarity loss: neighbours across modalities follow neighbours within one; a scalar.

    1/2 [KL(Q_vv || P_vt) + KL(Q_tt || P_tv)], mean over rows, where P and Q are row-wise softmaxes of cosines divided
    by `temperature`, without the diagonal and the pairs in `same`. A row without any neighbour counts as 0.

    teacher: whether a gradient flows through Q. pairing: `swapped` lets Q_tt teach P_vt and Q_vv P_tv, `averaged`
    their mean teaches both. direction: `reversed` is KL(P || Q). threshold: Q is uniform over the neighbours whose
    cosine exceeds it; of two teachers one of which has no such neighbour, the mean is the other. ConfigError for a
    threshold with `reversed`, which is infinite wherever Q is 0.
    Source: MSTDT (arXiv 2406.16111) names the loss and its parts only; the formula, its variants, the detached teacher
    and the temperature are this project's reading."""
    if threshold is not None and direction == "reversed":
        raise ConfigError("bsl: KL(P || Q) is infinite for targets that are 0; leave out threshold or use 'forward'")
    left_out = ~_negatives(video, same)
    from_video = _log_teacher(video, left_out, temperature, threshold)
    from_text = _log_teacher(text, left_out, temperature, threshold)
    if teacher == "detached":
        from_video, from_text = from_video.detach(), from_text.detach()
    if pairing == "swapped":
        from_video, from_text = from_text, from_video
    elif pairing == "averaged":
        from_video = from_text = _log_mean(from_video, from_text)
    across = video @ text.T
    losses = []
    for log_q, student in ((from_video, across), (from_text, across.T)):
        log_p = _log_softmax(student / temperature, left_out)
        pair = (log_q, log_p) if direction == "forward" else (log_p, log_q)
        losses.append(_divergence(*pair, left_out))
    return (losses[0] + losses[1]) / 2


def same_rows(videos: Tensor, captions: Tensor) -> Tensor:
    """bool [B, B]: pairs of rows with the same video (ids [B]) or the same caption (token ids [B, L])."""
    same_video = videos[:, None] == videos[None]
    return same_video | (captions[:, None] == captions[None]).all(dim=-1)


def _log_teacher(own: Tensor, left_out: Tensor, temperature: float, threshold: float | None) -> Tensor:
    """log Q [B, B] of embeddings [B, D] among themselves; the floor where Q is 0."""
    cosines = own @ own.T
    if threshold is None:
        return _log_softmax(cosines / temperature, left_out)
    near = (cosines > threshold) & ~left_out
    count = near.sum(dim=1, keepdim=True).clamp_min(1).to(cosines.dtype)
    return torch.where(near, -count.log(), _floor(cosines))


def _log_mean(first: Tensor, second: Tensor) -> Tensor:
    """log of the mean of two teachers, row by row of those that have any neighbour."""
    teachers = first.exp().sum(dim=1, keepdim=True) + second.exp().sum(dim=1, keepdim=True)
    return torch.logaddexp(first, second) - teachers.detach().round().clamp_min(1).log()


def _divergence(log_a: Tensor, log_b: Tensor, left_out: Tensor) -> Tensor:
    """KL(A || B), mean over rows, over the columns that are not left out."""
    terms = log_a.exp() * (log_a - log_b)
    return terms.masked_fill(left_out, 0).sum(dim=1).mean()


def _log_softmax(scores: Tensor, left_out: Tensor) -> Tensor:
    return scores.masked_fill(left_out, _floor(scores)).log_softmax(dim=1)


def _floor(like: Tensor) -> float:
    """Stands for log 0. Finite: a row with nothing left would be NaN, and so would 0 * -inf inside a sum."""
    return torch.finfo(like.dtype).min / 2


def _negatives(rows: Tensor, same: Tensor | None) -> Tensor:
    """bool [B, B]: the pairs that are neither on the diagonal nor the same."""
    apart = ~torch.eye(len(rows), dtype=torch.bool, device=rows.device)
    return apart if same is None else apart & ~same


def _without(logits: Tensor, same: Tensor | None) -> Tensor:
    """The logits [B, B], -inf off the diagonal where the pair is the same."""
    if same is None:
        return logits
    itself = torch.eye(len(logits), dtype=torch.bool, device=logits.device)
    return logits.masked_fill(same & ~itself, -math.inf)
