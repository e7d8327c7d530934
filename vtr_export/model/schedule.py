"""The variance schedule of the sampler and of the diffusion, and their draws of noise."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .config import AlignmentConfig

EVALUATION_SEED = 24


@dataclass(frozen=True)
class Schedule:
    """Each tuple holds the values of k = 1 ... T', computed in float64."""

    beta: tuple[float, ...]  # linear from beta_1 to beta_T'; with one step beta_1
    alpha: tuple[float, ...]  # 1 - beta_k
    alpha_bar: tuple[float, ...]  # alpha_1 ... alpha_k
    chi: tuple[float, ...]  # beta_k / sqrt(alpha_k (1 - alpha_bar_k)), DITS equation 8
    sigma: tuple[float, ...]  # sqrt(beta_k), DITS equations 7 and 8

    @property
    def steps(self) -> int:
        return len(self.beta)

    @classmethod
    def of(cls, config: AlignmentConfig) -> Schedule:
        return cls.linear(config.steps, config.beta_start, config.beta_end)

    @classmethod
    def linear(cls, steps: int, beta_start: float, beta_end: float) -> Schedule:
        beta = torch.linspace(beta_start, beta_end, steps, dtype=torch.float64, device="cpu")
        alpha = 1.0 - beta
        alpha_bar = alpha.cumprod(0)
        chi = beta / torch.sqrt(alpha * (1.0 - alpha_bar))
        return cls(*(tuple(values.tolist()) for values in (beta, alpha, alpha_bar, chi, beta.sqrt())))


def noise_source(*, training: bool) -> torch.Generator | None:
    """Where one forward pass draws from: torch's global generator in training, so that a resumed run goes on with the
    same draws; in evaluation one that begins anew each time, so that evaluating twice gives the same numbers."""
    return None if training else torch.Generator().manual_seed(EVALUATION_SEED)


def normal_like(x: Tensor, source: torch.Generator | None) -> Tensor:
    """Draws of N(0, 1) in x's shape, dtype and place. Drawn on the CPU in float32: the same on every device."""
    return torch.randn(x.shape, generator=source).to(x)
