"""Alignment heads: embeddings [B, D] of one modality -> embeddings [B, D] beside the other's, not normalised."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from .alignment_network import AlignmentNetwork, xavier, zero
from .attention import unit
from .config import AlignmentConfig
from .diffusion import GapDiffusion
from .dits import Sampler, Walk
from .schedule import noise_source, normal_like


class FixedPrior(nn.Module):
    """t + sigma eps, eps ~ N(0, I): the fixed prior of the DITS paper (equation 3, table 4)."""

    def __init__(self, config: AlignmentConfig) -> None:
        super().__init__()
        self.sigma, self.start = config.sigma, config.start

    def forward(self, text: Tensor) -> Tensor:
        start = unit(text) if self.start == "normalised" else text
        return start + self.sigma * normal_like(start, noise_source(training=self.training))


class ResidualBlock(nn.Module):
    """x + MLP(LayerNorm(x)), [B, D] -> [B, D]."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(xavier(nn.Linear(width, hidden)), nn.GELU(), xavier(nn.Linear(hidden, width)))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mlp(self.norm(x))  # type: ignore[no-any-return]


class ResidualMlp(nn.Module):
    """t + MLP(t), the identity at first: what as many parameters do without the sampler's steps."""

    def __init__(self, width: int, config: AlignmentConfig) -> None:
        super().__init__()
        hidden = _hidden_width(width, config)
        self.width, self.start = width, config.start
        self.first = xavier(nn.Linear(width, width))
        self.blocks = nn.Sequential(*(ResidualBlock(width, hidden) for _ in range(config.blocks)))
        self.last = zero(nn.Linear(width, width))

    def forward(self, text: Tensor) -> Tensor:
        start = unit(text) if self.start == "normalised" else text
        return start + self.last(self.blocks(self.first(start)))  # type: ignore[no-any-return]


def _hidden_width(width: int, config: AlignmentConfig) -> int:
    """With it a ResidualMlp has as many parameters as the sampler's network, to the nearest."""
    with torch.device("meta"):
        wanted = sum(parameter.numel() for parameter in AlignmentNetwork(width, config).parameters())
    outside = 2 * (width * width + width)
    beside, each = 3 * width, 2 * width + 1  # of a block: norm and last bias; per hidden channel
    return max(1, round((wanted - outside - config.blocks * beside) / (config.blocks * each)))


def build_alignment_head(width: int, config: AlignmentConfig, tower: Literal["video", "text"]) -> nn.Module | None:
    """The head behind one tower. At most one of the two has one."""
    if config.kind == "none" or config.of_video != (tower == "video"):
        return None
    if config.kind == "fixed-prior":
        return FixedPrior(config)
    return {"diffusion": GapDiffusion, "dits": Sampler, "mlp": ResidualMlp}[config.kind](width, config)


def align(head: nn.Module, embeddings: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """Embeddings [B, D] -> (a walk's steps by the names of Walk.stage_names, the result of norm 1)."""
    if not isinstance(head, Walk):
        return {}, unit(head(embeddings))
    latents = head.trajectory(embeddings)[1:]
    return dict(zip(head.stage_names, latents, strict=True)), unit(latents[-1])
