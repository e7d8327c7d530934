"""Temporal heads: frame features [B, T, D] and their mask -> one unit embedding per video.

Every head returns (video embedding [B, D], frame embeddings [B, T, D]); both are of L2 norm 1, the frames zero where
masked. What stands in a masked frame changes nothing, and at least one frame of a video is valid."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .attention import Transformer, keep, key_mask, unit
from .backbone import TextTransformer
from .config import ModelConfig, TemporalConfig


def mean_of_frames(frames: Tensor) -> Tensor:
    """The direction of the mean of frames [B, T, D] that are zero where masked; their count cancels in the norm."""
    return unit(frames.sum(dim=1))


class MeanHead(nn.Module):
    """CLIP4Clip's meanP: each frame to norm 1, masked mean, norm 1."""

    def forward(self, features: Tensor, frame_mask: Tensor) -> tuple[Tensor, Tensor]:
        frames = unit(keep(features, frame_mask))
        return mean_of_frames(frames), frames


class FrameTransformer(nn.Module):
    """CLIP4Clip's seqTransf: positions, residual blocks, and the frame features added to what they make of them."""

    def __init__(self, width: int, layers: int, config: TemporalConfig, *, positions: int, quick_gelu: bool) -> None:
        super().__init__()
        self.positional_embedding = nn.Parameter(torch.randn(positions, width) * config.position_std)
        self.transformer = Transformer(width, layers, config.heads_for(width), config.mlp_ratio, quick_gelu=quick_gelu)

    def forward(self, features: Tensor, frame_mask: Tensor) -> tuple[Tensor, Tensor]:
        features = keep(features, frame_mask)
        placed = features + self.positional_embedding[: features.shape[1]]
        mixed = self.transformer(placed, key_mask(frame_mask, features.dtype)) + features
        frames = keep(unit(mixed), frame_mask)
        return mean_of_frames(frames), frames


class ShortTermEncoder(nn.Module):
    """MSTDT's branch of one scale k: contiguous subsets of k frames, each with its difference to the frame before."""

    def __init__(self, width: int, scale: int, config: TemporalConfig, *, quick_gelu: bool) -> None:
        super().__init__()
        self.scale = scale
        self.transformer = Transformer(
            width, config.stacks[0], config.heads_for(width), config.mlp_ratio, quick_gelu=quick_gelu
        )

    def forward(self, features: Tensor, frame_mask: Tensor, positions: Tensor) -> Tensor:
        """Features [B, T, D], zero where masked, and positions [k, D] -> s_k [B, D], not normalised."""
        frames, valid = self._subsets(features, frame_mask)
        # d_1 is the guide v_1; d_t = v_t - v_(t-1) counts only where both frames are there, or the end of a clip
        # would look like its largest motion (mstdt.md O3, O4).
        steps = keep(frames[:, 1:] - frames[:, :-1], valid[:, 1:] & valid[:, :-1])
        differences = torch.cat([frames[:, :1], steps], dim=1)
        mixed = unit(self.transformer(frames + differences + positions, key_mask(valid, features.dtype)))

        subsets = -(-features.shape[1] // self.scale)
        weight = valid.to(mixed.dtype)
        count = weight.sum(dim=1, keepdim=True)
        means = (mixed * (weight / count.clamp_min(1.0)).unsqueeze(-1)).sum(dim=1)
        filled = (count > 0).to(mixed.dtype).reshape(-1, subsets).sum(dim=1, keepdim=True)
        return means.reshape(-1, subsets, means.shape[-1]).sum(dim=1) / filled

    def _subsets(self, features: Tensor, frame_mask: Tensor) -> tuple[Tensor, Tensor]:
        """[B, T, D], [B, T] -> [B m, k, D], [B m, k]; a last short subset is filled with masked frames (O2)."""
        missing = -features.shape[1] % self.scale
        if missing:
            features = F.pad(features, (0, 0, 0, missing))
            # Padded as numbers, since engines have no Pad for bool.
            frame_mask = F.pad(frame_mask.to(features.dtype), (0, missing)) > 0.5
        return features.reshape(-1, self.scale, features.shape[2]), frame_mask.reshape(-1, self.scale)


class DifferenceTransformer(nn.Module):
    """MSTDT, variant A (methods: arXiv 2406.16111): V = alpha s + (1 - alpha) l, both of norm 1, then norm 1.

    s is the mean over the scales of the short-term encoders, l a long-term FrameTransformer over all frames, whose
    frame embeddings are returned."""

    def __init__(self, width: int, config: TemporalConfig, *, positions: int, quick_gelu: bool) -> None:
        super().__init__()
        self.alpha = config.alpha
        self.short_positions = nn.Parameter(torch.randn(max(config.scales), width) * config.position_std)
        self.short = nn.ModuleList(
            ShortTermEncoder(width, scale, config, quick_gelu=quick_gelu) for scale in config.scales
        )
        self.long = FrameTransformer(width, config.stacks[1], config, positions=positions, quick_gelu=quick_gelu)

    def forward(self, features: Tensor, frame_mask: Tensor) -> tuple[Tensor, Tensor]:
        long, frames = self.long(features, frame_mask)
        features = keep(features, frame_mask)
        scales = [encoder(features, frame_mask, self.short_positions[: encoder.scale]) for encoder in self.short]
        short = unit(torch.stack(scales).sum(dim=0))
        return unit(self.alpha * short + (1.0 - self.alpha) * long), frames


def build_temporal_head(config: ModelConfig) -> nn.Module:
    temporal, width = config.temporal, config.backbone.embed_dim
    if temporal.kind == "mean":
        return MeanHead()
    quick_gelu = config.backbone.quick_gelu
    positions = max(config.backbone.text.context_length, config.frames.count)
    if temporal.kind == "transformer":
        return FrameTransformer(width, temporal.layers, temporal, positions=positions, quick_gelu=quick_gelu)
    return DifferenceTransformer(width, temporal, positions=positions, quick_gelu=quick_gelu)


@torch.no_grad()
def copy_text_weights(head: nn.Module, text: TextTransformer, config: TemporalConfig) -> None:
    """Begin a head as CLIP4Clip does: positions and blocks 0, 1, ... of every stack from the text tower, where the
    configuration says so. The branches of MSTDT all see frames, so each begins at block 0."""
    for module in head.modules():
        if isinstance(module, Transformer) and config.init == "text":
            for block, source in zip(module.resblocks, text.transformer.resblocks, strict=False):
                block.load_state_dict(source.state_dict())
    if config.position_init == "text":
        for table in _position_tables(head):
            table.copy_(text.positional_embedding[: table.shape[0]])


def _position_tables(head: nn.Module) -> Iterator[nn.Parameter]:
    for module in head.modules():
        if isinstance(module, FrameTransformer):
            yield module.positional_embedding
        if isinstance(module, DifferenceTransformer):
            yield module.short_positions
