"""Losses on a batch of unit embeddings, as pure functions. Row i of one modality belongs to row i of the other."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

BSL_TEMPERATURE = 0.05


def info_nce(video: Tensor, text: Tensor, scale: Tensor | float, same: Tensor | None = None) -> Tensor:
    """Symmetric InfoNCE: the mean over both directions of -log softmax_j(scale * cos(i, j))[i]; a scalar.

    video, text: float [B, D], unit length. scale: the multiplied logit scale. same: bool [B, B], pairs of rows that
    hold the same video or the same caption; off the diagonal they are no negatives and are left out.
    Source: DITS (NeurIPS 2024) eq. 2, halved as in CLIP4Clip and X-Pool."""
    logits = scale * text @ video.T
    if same is not None:
        logits = logits.masked_fill(_off_diagonal(same), -torch.inf)
    target = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def bsl(video: Tensor, text: Tensor, same: Tensor | None = None, *, temperature: float = BSL_TEMPERATURE) -> Tensor:
    """Binary similarity loss: neighbours across modalities follow neighbours within one; a scalar.

    1/2 [KL(Q_vv || P_vt) + KL(Q_tt || P_tv)], mean over rows, where P and Q are row-wise softmaxes of cosines divided
    by `temperature`, without the diagonal and the pairs in `same` (see info_nce). No gradient flows through the
    teachers Q. A row without any neighbour counts as 0.
    Source: MSTDT (arXiv 2406.16111) names the loss and its parts only; the formula, the detached teacher and the
    temperature are this project's reading."""
    left_out = torch.eye(len(video), dtype=torch.bool, device=video.device)
    if same is not None:
        left_out = left_out | same
    video_teacher, text_teacher = (video @ video.T).detach(), (text @ text.T).detach()
    across = video @ text.T
    from_video = _row_divergence(video_teacher, across, left_out, temperature)
    from_text = _row_divergence(text_teacher, across.T, left_out, temperature)
    return (from_video + from_text) / 2


def same_rows(videos: Tensor, captions: Tensor) -> Tensor:
    """bool [B, B]: pairs of rows with the same video (ids [B]) or the same caption (token ids [B, L])."""
    same_video = videos[:, None] == videos[None]
    return same_video | (captions[:, None] == captions[None]).all(dim=-1)


def _row_divergence(teacher: Tensor, student: Tensor, left_out: Tensor, temperature: float) -> Tensor:
    """Mean over rows of KL(softmax(teacher) || softmax(student)) over the columns that are not left out."""
    # A finite floor instead of -inf: a row with nothing left would be NaN, and so would 0 * -inf inside the sum.
    floor = torch.finfo(student.dtype).min / 2
    log_q = (teacher / temperature).masked_fill(left_out, floor).log_softmax(dim=1)
    log_p = (student / temperature).masked_fill(left_out, floor).log_softmax(dim=1)
    terms = log_q.exp() * (log_q - log_p)
    return terms.masked_fill(left_out, 0).sum(dim=1).mean()


def _off_diagonal(same: Tensor) -> Tensor:
    return same & ~torch.eye(len(same), dtype=torch.bool, device=same.device)
