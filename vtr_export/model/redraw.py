"""Random weights for what begins at zero, so that a model that was never trained can prove something."""

from __future__ import annotations

import math

import torch
from torch import nn

from .dits import Sampler

WALK = 2.0
"""Length of a redrawn sampler's walk, over that of its start."""


@torch.no_grad()
def redraw_zero_parameters(model: nn.Module, seed: int) -> list[str]:
    """Redraw every parameter that is entirely zero, in place; return the names. The same seed gives the same weights.

    Matrices get half the deviation that keeps a variance, vectors 0.1. The sampler's last projection is drawn such that
    its walk is about twice as long as a start of unit variance per channel, or of length 1 if it is normalised."""
    generator = torch.Generator().manual_seed(seed)
    last = {id(sampler.network.final.linear.weight): _last_deviation(sampler) for sampler in _samplers(model)}
    redrawn = []
    for name, parameter in model.named_parameters():
        if parameter.any():
            continue
        deviation = 0.1 if parameter.ndim < 2 else 0.5 * parameter[0].numel() ** -0.5
        drawn = torch.randn(parameter.shape, generator=generator) * last.get(id(parameter), deviation)
        parameter.copy_(drawn)
        redrawn.append(name)
    return redrawn


def _samplers(model: nn.Module) -> list[Sampler]:
    return [module for module in model.modules() if isinstance(module, Sampler)]


def _last_deviation(sampler: Sampler) -> float:
    per_channel = 1.0 if sampler.start == "raw" else math.sqrt(1.0 / sampler.width)
    return WALK / sum(sampler.chi) * per_channel * math.sqrt(1.0 / sampler.width)
