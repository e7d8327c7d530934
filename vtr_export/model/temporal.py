"""Temporal heads: frame features [B, T, D] and their mask -> one unit embedding per video.

Every head returns (video embedding [B, D], frame embeddings [B, T, D]); both are of L2 norm 1, the frames zero where
masked. What stands in a masked frame changes nothing, and at least one frame of a video is valid."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from .attention import Transformer
from .backbone import TextTransformer
from .clip4clip import FrameTransformer, LstmHead, MeanHead
from .config import ModelConfig, TemporalConfig
from .mstdt import DifferenceTransformer

__all__ = [
    "DifferenceTransformer",
    "FrameTransformer",
    "LstmHead",
    "MeanHead",
    "build_temporal_head",
    "copy_text_weights",
]


def build_temporal_head(config: ModelConfig) -> nn.Module:
    temporal, width, frames = config.temporal, config.backbone.embed_dim, config.frames.count
    if temporal.kind == "mean":
        return MeanHead()
    if temporal.kind == "lstm":
        return LstmHead(width)
    quick_gelu = config.backbone.quick_gelu
    positions = max(config.backbone.text.context_length, frames)
    if temporal.kind == "transformer":
        return FrameTransformer(width, temporal.layers, temporal, positions=positions, quick_gelu=quick_gelu)
    return DifferenceTransformer(width, temporal, frames=frames, positions=positions, quick_gelu=quick_gelu)


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
