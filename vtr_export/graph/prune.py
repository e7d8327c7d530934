"""Towers without the work that cannot reach their output or that need not wait for the input; the same function.

- Of the last block one token is read: the class token of a picture, the end token of a sentence. Only this token needs
  a query and the MLP there: about 7 % of ViT-B/32. (Where words are asked for, the text tower's block stays whole.)
- Pixels are normalised by the weights of the patch embedding, which then sees the integers 0 to 255: exact in every
  precision. A ResNet pads its first convolution with normalised zeros, so there the normalisation stays.
- Queries bring their scale along in their weights."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TypeVar, cast

import torch
from torch import Tensor, nn

from ..model.attention import Attention, ResidualBlock, attend_joined
from ..model.backbone import TextTransformer, VisionTransformer
from ..model.text_tower import TextTower
from ..model.video_tower import VideoTower
from .rebuild import replace_modules, with_parts

M = TypeVar("M", bound=nn.Module)


def prune_video_tower(tower: VideoTower) -> VideoTower:
    """The same function of frames and mask, to rounding. What stays as it was is shared with the tower given."""
    tower = scale_queries(tower)
    if not isinstance(tower.backbone, VisionTransformer):
        return tower
    backbone = _as_subclass(tower.backbone, PixelVision)
    backbone.transformer = with_last_block_for_one(backbone.transformer)
    backbone.conv1 = _fold_normalisation(backbone.conv1, tower.mean, tower.scale)
    # The exporter leaves sums of constants of this size to be taken anew in each run.
    table = tower.backbone.token_table().detach()
    vars(backbone)["_buffers"] = {**backbone._buffers, "table": table}
    pruned = with_parts(tower, backbone=backbone)
    pruned.normalise = False
    return pruned.eval()


def prune_text_tower(tower: TextTower, *, words: bool) -> TextTower:
    """The same function of the ids, to rounding. `words`: `with_words` will be asked, so every token is needed."""
    tower = scale_queries(tower)
    if words:
        return tower
    backbone = _as_subclass(tower.backbone, EndOfText)
    backbone.transformer = with_last_block_for_one(backbone.transformer)
    return with_parts(tower, backbone=backbone).eval()


class PixelVision(VisionTransformer):
    """Pixels 0 ... 255, not normalised -> features; the last block answers for the class token alone."""

    table: Tensor

    def token_table(self) -> Tensor:
        return self.table

    def forward(self, pixels: Tensor) -> Tensor:
        tokens = self.embed(pixels)
        *blocks, last = self.transformer.resblocks
        for block in blocks:
            tokens = block(tokens)
        return self.project(last(tokens, lambda x: x[:, 0]))


class EndOfText(TextTransformer):
    """The last block answers for the end token alone, which sees what stands before it."""

    def forward(self, input_ids: Tensor) -> Tensor:
        tokens, mask = self.embed(input_ids), self.mask(input_ids)
        *blocks, last = self.transformer.resblocks
        for block in blocks:
            tokens = block(tokens, mask)
        # The causal mask's own rows, so that one place says what a token sees.
        seen = mask[self.end_positions(input_ids)][:, None, None, :]
        return self.project(last(tokens, lambda x: self.at_end(x, input_ids), seen))


class BlockForOne(nn.Module):
    """A residual block that answers for one token: of tokens [B, L, width] that which `pick` takes -> [B, width]."""

    def __init__(self, block: ResidualBlock) -> None:
        super().__init__()
        self.ln_1, self.ln_2, self.mlp = block.ln_1, block.ln_2, block.mlp
        self.attn = AttentionOfOne(block.attn)

    def forward(self, tokens: Tensor, pick: Callable[[Tensor], Tensor], mask: Tensor | None = None) -> Tensor:
        # Picked behind the LayerNorm too: the graph holds as many as the trained block, which the fusion report counts.
        normed = self.ln_1(tokens)
        x = pick(tokens) + self.attn(pick(normed), normed, mask)
        return x + self.mlp(self.ln_2(x))  # type: ignore[no-any-return]


class AttentionOfOne(nn.Module):
    """One query a row: asked [B, width] and tokens [B, L, width] -> [B, width]."""

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.width, self.heads, self.scale = attention.width, attention.heads, attention.scale
        # Slices of one matrix would stay slices in the graph.
        self.query = _linear(attention.in_proj_weight[: self.width], attention.in_proj_bias[: self.width])
        self.key_value = _linear(attention.in_proj_weight[self.width :], attention.in_proj_bias[self.width :])
        self.out_proj = attention.out_proj

    def forward(self, asked: Tensor, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        key, value = self.key_value(tokens).chunk(2, dim=2)
        seen = attend_joined(self.query(asked).unsqueeze(1), key, value, self.heads, mask, self.scale)
        return self.out_proj(seen.squeeze(1))  # type: ignore[no-any-return]


def with_last_block_for_one(transformer: M) -> M:
    *blocks, last = cast(nn.ModuleList, transformer.resblocks)
    return with_parts(transformer, resblocks=nn.ModuleList([*blocks, BlockForOne(cast(ResidualBlock, last))]))


def scale_queries(tower: M) -> M:
    """Every self-attention's scale joins its query's weights, which is exact for head widths that are powers of 4."""

    def scaled(module: nn.Module) -> nn.Module | None:
        if not isinstance(module, Attention):
            return None
        factor = torch.ones(3 * module.width, 1, dtype=module.in_proj_weight.dtype)
        factor[: module.width] = module.scale
        changed = copy.copy(module)
        weight, bias = module.in_proj_weight * factor, module.in_proj_bias * factor[:, 0]
        changed._parameters = {
            "in_proj_weight": nn.Parameter(weight.detach()),
            "in_proj_bias": nn.Parameter(bias.detach()),
        }
        changed.scale = 1.0
        return changed

    return replace_modules(tower, scaled).eval()


def _as_subclass(module: nn.Module, kind: type[M]) -> M:
    changed = with_parts(module)
    changed.__class__ = kind
    return cast(M, changed)


def _fold_normalisation(conv: nn.Conv2d, mean: Tensor, scale: Tensor) -> nn.Conv2d:
    """conv((x - mean) scale) as one convolution; the products are taken in float64."""
    size, stride, kind = conv.kernel_size, conv.stride, conv.weight.dtype
    folded = nn.Conv2d(conv.in_channels, conv.out_channels, size, stride, dtype=kind)  # type: ignore[arg-type]
    with torch.no_grad():
        weight = conv.weight.double() * scale.double()
        folded.weight.copy_(weight)
        folded.bias.copy_(-(weight * mean.double()).sum((1, 2, 3)))  # type: ignore[union-attr]
    return folded


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], dtype=weight.dtype)
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    return layer
