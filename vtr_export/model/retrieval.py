"""Both towers, the temperature of their similarity, and the second stage."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .config import ModelConfig
from .rerank import build_reranker
from .temporal import copy_text_weights
from .text_tower import TextTower
from .video_tower import VideoTower

MAX_LOGIT_SCALE = math.log(100.0)


class RetrievalModel(nn.Module):
    """`video` and `text` are independent: a library is embedded once, and a query costs one text pass."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.video = VideoTower(config)
        self.text = TextTower(config)
        self.rerank = build_reranker(config)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1.0 / 0.07)))
        self.initialise_temporal_head()

    def forward(self, frames: Tensor, frame_mask: Tensor, input_ids: Tensor) -> tuple[Tensor, Tensor]:
        """(video embeddings [B, D], text embeddings [C, D]), both of norm 1."""
        return self.video(frames, frame_mask), self.text(input_ids)

    def initialise_temporal_head(self) -> None:
        """Let the head begin as its configuration says; to be called again once the text tower has its weights."""
        copy_text_weights(self.video.temporal, self.text.backbone, self.config.temporal)

    @torch.no_grad()
    def clamp_logit_scale(self) -> None:
        """Keep exp(logit_scale) at most 100, as CLIP does after every step."""
        self.logit_scale.clamp_(max=MAX_LOGIT_SCALE)
