"""The temporal heads of CLIP4Clip (arXiv 2104.08860, section 3.3) that need no text: meanP, seqLSTM, seqTransf."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn

from .attention import Transformer, keep, key_mask, unit
from .config import TemporalConfig


def mean_of_frames(frames: Tensor) -> Tensor:
    """The direction of the mean of frames [B, T, D] that are zero where masked; their count cancels in the norm."""
    return unit(frames.sum(dim=1))


class MeanHead(nn.Module):
    """CLIP4Clip's meanP: each frame to norm 1, masked mean, norm 1."""

    def forward(self, features: Tensor, frame_mask: Tensor) -> tuple[Tensor, Tensor]:
        frames = unit(keep(features, frame_mask))
        return mean_of_frames(frames), frames


class LstmHead(nn.Module):
    """CLIP4Clip's seqLSTM: one LSTM layer from the first frame to the last, and the frame features added to its output.

    A masked frame after the last valid one is never seen. One before it, a hole, is a step of time in which a zero
    frame is seen: the state goes on, as positions go on in FrameTransformer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.lstm = nn.LSTM(width, width)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        # cuDNN gives no gradients in evaluation mode, which a frozen head needs for the image tower before it; a
        # single layer without dropout computes the same in both.
        self.lstm.train()
        return self

    def forward(self, features: Tensor, frame_mask: Tensor) -> tuple[Tensor, Tensor]:
        features = keep(features, frame_mask)
        steps = features.transpose(0, 1)
        # An initial state that is a product, and time as the first axis, spare the exported graph its shape arithmetic.
        zero = 0.0 * steps[:1]
        states = self.lstm(steps, (zero, zero))[0].reshape(features.shape[1], -1, self.width)
        frames = unit(keep(states.transpose(0, 1) + features, frame_mask))
        return mean_of_frames(frames), frames


class FrameTransformer(nn.Module):
    """CLIP4Clip's seqTransf: positions, residual blocks, and the frame features added to what they make of them."""

    def __init__(self, width: int, layers: int, config: TemporalConfig, *, positions: int, quick_gelu: bool) -> None:
        super().__init__()
        self.positional_embedding = nn.Parameter(torch.randn(positions, width) * config.position_std)
        self.transformer = Transformer(width, layers, config.heads_for(width), config.mlp_ratio, quick_gelu=quick_gelu)

    def forward(self, features: Tensor, frame_mask: Tensor) -> tuple[Tensor, Tensor]:
        frames = unit(self.mix(features, frame_mask))
        return mean_of_frames(frames), frames

    def mix(self, features: Tensor, frame_mask: Tensor) -> Tensor:
        """Features [B, T, D] + what the blocks make of them: [B, T, D], not normalised, zero where masked."""
        features = keep(features, frame_mask)
        placed = features + self.positional_embedding[: features.shape[1]]
        return keep(self.transformer(placed, key_mask(frame_mask, features.dtype)) + features, frame_mask)
