"""MSTDT, the multi-scale temporal difference transformer (arXiv 2406.16111): V = alpha s + (1 - alpha) l.

s, the short term, is the mean over scales k of s_k, made from subsets S_k of k frames and their differences D_k; l, the
long term, is a transformer over all frames. Equations, switches and what the paper leaves open: docs/methods.md."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .attention import Transformer, keep, key_mask, unit
from .clip4clip import FrameTransformer, mean_of_frames
from .config import TemporalConfig


def cut(x: Tensor, *, size: int, stride: int, tail: str) -> Tensor:
    """[B, T, ...] -> [B, m, k, ...], k = `size`: subsets that begin `stride` apart. Tail 'pad' makes as many as hold
    every frame, the last one filled with zeros; 'drop' only whole ones."""
    beyond = x.shape[1] - size
    count = 1 + (beyond // stride if tail == "drop" else max(0, -(-beyond // stride)))
    length = (count - 1) * stride + size
    if length > x.shape[1]:
        x = F.pad(x, (0, 0) * (x.ndim - 2) + (0, length - x.shape[1]))
    if stride == size:
        return x[:, :length].reshape(-1, count, size, *x.shape[2:])
    return torch.stack([x[:, i * stride : i * stride + size] for i in range(count)], dim=1)


def differences(frames: Tensor, valid: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    """D and which of it counts (1, else 0), of a clip or of every subset: frames [..., L, D], zero where masked, and
    their validity as numbers [..., L] -> [..., L, D] and [..., L].

    v_t - v_(t-1) counts, and is not zero, only where both frames are valid, or the end of a clip would look like its
    largest motion. Kind 'guide' begins with v_1, 'cross-boundary' with zero, 'zero-last' ends with zero."""
    counts = valid[..., 1:] * valid[..., :-1]
    steps = (frames[..., 1:, :] - frames[..., :-1, :]) * counts.unsqueeze(-1)
    if kind == "guide":
        return torch.cat([frames[..., :1, :], steps], dim=-2), torch.cat([valid[..., :1], counts], dim=-1)
    missing = (0, 1) if kind == "zero-last" else (1, 0)
    return F.pad(steps, (0, 0, *missing)), F.pad(counts, missing)


def pool_subsets(frames: Tensor, valid: Tensor, *, stride: int, pool: str) -> Tensor:
    """Frames [B, m, k, D] and their validity as numbers [B, m, k] -> s_k [B, D]: the mean or the sum over the valid
    frames of a subset, then the mean over the subsets that count; zero if none does.

    A subset counts if it holds a valid frame that those before it do not, so that padding adds no overlapping ones."""
    held = valid.sum(dim=2)
    weights = valid / held.clamp_min(1.0).unsqueeze(-1) if pool == "mean" else valid
    new = held
    if stride < valid.shape[2]:
        new = torch.cat([held[:, :1], valid[:, 1:, -stride:].sum(dim=2)], dim=1)
    count = (new > 0).to(valid.dtype)
    subsets = (frames * weights.unsqueeze(-1)).sum(dim=2)
    return (subsets * count.unsqueeze(-1)).sum(dim=1) / count.sum(dim=1, keepdim=True).clamp_min(1.0)


class Merge(nn.Module):
    """How differences D join frames S and positions P: S + D + P, S + g D + P, S + W D + P, or as tokens D + P of their
    own beside S + P, each of the two kinds marked by a type embedding."""

    def __init__(self, width: int, config: TemporalConfig) -> None:
        super().__init__()
        self.kind = config.merge
        if self.kind == "gate":
            self.gate = nn.Parameter(torch.tensor(config.gate_init))
        elif self.kind == "projection":
            self.projection = nn.Linear(width, width, bias=False)
            nn.init.eye_(self.projection.weight)
        elif self.kind == "interleave":
            self.types = nn.Parameter(torch.randn(2, width) * config.position_std)

    def forward(self, frames: Tensor, motion: Tensor, positions: Tensor) -> Tensor:
        """S and D [B, m, k, D], P that broadcasts to them -> tokens [B, m, k, D]; [B, m, 2 k, D] of 'interleave', the
        frames' first: attention knows order by positions alone, so the two of a pair need not be neighbours."""
        if self.kind == "interleave":
            return torch.cat([frames + self.types[0] + positions, motion + self.types[1] + positions], dim=2)
        if self.kind == "gate":
            motion = self.gate * motion
        elif self.kind == "projection":
            motion = self.projection(motion)
        return frames + motion + positions


class ShortTermStack(nn.Module):
    """The blocks of one scale in variant A, of all scales in variant B."""

    def __init__(self, width: int, config: TemporalConfig, *, quick_gelu: bool) -> None:
        super().__init__()
        self.transformer = Transformer(
            width, config.stacks[0], config.heads_for(width), config.mlp_ratio, quick_gelu=quick_gelu
        )

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        return self.transformer(tokens, mask)  # type: ignore[no-any-return]


class DifferenceTransformer(nn.Module):
    """MSTDT in the variants A, B and C, for clips of at most `frames` frames; TemporalConfig describes the switches.

    The frame embeddings are those of the long term. A scale that has no subset with a valid frame adds nothing to s."""

    def __init__(self, width: int, config: TemporalConfig, *, frames: int, positions: int, quick_gelu: bool) -> None:
        super().__init__()
        self.config, self.width = config, width
        rows = frames if config.positions == "absolute" else max(config.scales)
        self.short_positions = nn.Parameter(torch.randn(rows, width) * config.position_std)
        self.short = nn.ModuleList(
            ShortTermStack(width, config, quick_gelu=quick_gelu)
            for _ in range({"A": len(config.scales), "B": 1, "C": 0}[config.variant])
        )
        self.long = FrameTransformer(width, config.stacks[1], config, positions=positions, quick_gelu=quick_gelu)
        self.merge = Merge(width, config)
        if config.alpha_learned:
            self.alpha_logit = nn.Parameter(torch.tensor(math.log(config.alpha / (1.0 - config.alpha))))

    @property
    def alpha(self) -> Tensor | float:
        return torch.sigmoid(self.alpha_logit) if self.config.alpha_learned else self.config.alpha

    def forward(self, features: Tensor, frame_mask: Tensor) -> tuple[Tensor, Tensor]:
        mixed = self.long.mix(features, frame_mask)
        frames = unit(mixed)
        valid = frame_mask.to(features.dtype)
        short = self._short_term(keep(features, frame_mask), valid)
        if self.config.normalise:
            short, long = unit(short), mean_of_frames(frames)
        else:
            long = mixed.sum(dim=1) / valid.sum(dim=1, keepdim=True)
        return unit(self.alpha * short + (1.0 - self.alpha) * long), frames

    def _short_term(self, features: Tensor, valid: Tensor) -> Tensor:
        """Features [B, T, D], zero where masked, and their validity as numbers [B, T] -> s [B, D], the mean of s_k."""
        stacks: list[nn.Module] = list(self.short) or [self.long.transformer]
        if len(stacks) == 1:
            stacks *= len(self.config.scales)
        scales = zip(self.config.scales, stacks, strict=True)
        return torch.stack([self._scale(features, valid, k, stack) for k, stack in scales]).mean(dim=0)

    def _scale(self, features: Tensor, valid: Tensor, k: int, stack: nn.Module) -> Tensor:
        """s_k [B, D], not normalised."""
        config, stride = self.config, self.config.stride or k
        subsets = partial(cut, size=k, stride=stride, tail=config.tail)
        frames, inside = subsets(features), subsets(valid)
        positions = self.short_positions[:k]
        if config.positions == "absolute":
            positions = subsets(self.short_positions[None, : features.shape[1]])

        if config.difference == "none":
            tokens, seen = frames + positions, inside
        else:
            if config.difference == "cross-boundary":
                motion, counts = map(subsets, differences(features, valid, config.difference))
            else:
                motion, counts = differences(frames, inside, config.difference)
            tokens = self.merge(frames, motion, positions)
            seen = torch.cat([inside, counts], dim=2) if config.merge == "interleave" else inside

        length = tokens.shape[2]
        mask = key_mask(seen.reshape(-1, length), features.dtype)
        mixed = stack(tokens.reshape(-1, length, self.width), mask).reshape(-1, *tokens.shape[1:])[:, :, :k]
        if config.short_residual:
            mixed = mixed + frames
        return pool_subsets(unit(mixed) if config.normalise else mixed, inside, stride=stride, pool=config.pool)
