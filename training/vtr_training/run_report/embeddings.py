"""Embeddings of a split before and after the alignment head."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vtr_export.model.attention import unit
from vtr_export.model.retrieval import RetrievalModel

from ..data.split import Split
from ..embed import TEXT_BATCH, VIDEO_BATCH, Embeddings, evaluating, spans
from ..evaluate import cosines
from .gap import GapFigures, gap_figures


@dataclass(frozen=True)
class BeforeAfter:
    """Unit embeddings of N clips and M captions. Only the side behind which the alignment head stands changes."""

    text_before: Embeddings  # [M, D]
    text_after: Embeddings  # [M, D]
    video_before: Embeddings  # [N, D]
    video_after: Embeddings  # [N, D]
    owners: NDArray[np.int64]  # [M] the clip that each caption belongs to

    @property
    def scores_before(self) -> NDArray[np.float64]:
        """Cosines [M, N]."""
        return cosines(self.text_before, self.video_before)

    @property
    def scores_after(self) -> NDArray[np.float64]:
        """Cosines [M, N], those that retrieval ranks."""
        return cosines(self.text_after, self.video_after)

    @property
    def gap(self) -> GapFigures:
        """Of all M matched pairs."""
        before, after = self.video_before[self.owners], self.video_after[self.owners]
        return gap_figures(self.text_before, self.text_after, before, after)


def embed_before_after(model: RetrievalModel, split: Split) -> BeforeAfter:
    """`before` is the normalised projection of a sentence, and the temporal head's embedding of a clip."""
    device = model.logit_scale.device
    frames = split.frames

    def tensor(array: NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(np.array(array)).to(device)  # a copy: the frames are read-only memory

    with evaluating(model):
        text = [_text(model, tensor(split.ids[rows])) for rows in spans(len(split.ids), TEXT_BATCH)]
        clips = spans(len(frames.clips), VIDEO_BATCH)
        video = [_video(model, tensor(frames.pixels[rows]), tensor(frames.mask[rows])) for rows in clips]
    (text_before, text_after), (video_before, video_after) = (_joined(parts) for parts in (text, video))
    return BeforeAfter(text_before, text_after, video_before, video_after, split.owners)


def _text(model: RetrievalModel, ids: Tensor) -> tuple[Tensor, Tensor]:
    stages = model.text.stages(ids)
    return unit(stages["text_embedding"]), stages["aligned"]


def _video(model: RetrievalModel, pixels: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    features = model.video.encode_frames(pixels)
    before, _ = model.video.temporal(features, mask)
    after = model.video.embed(features, mask)[0] if model.config.alignment.of_video else before
    return before, after


def _joined(parts: list[tuple[Tensor, Tensor]]) -> tuple[Embeddings, Embeddings]:
    before, after = (torch.cat(side).float().cpu().numpy() for side in zip(*parts, strict=True))
    return before, after
