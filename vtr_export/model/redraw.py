"""Random weights for what begins at zero, so that a model that was never trained can prove something."""

from __future__ import annotations

import math

import torch
from torch import nn

from .alignment import ResidualMlp
from .dits import Sampler

WALK = 3.0
"""Length of what a redrawn alignment head adds, over that of its start."""


@torch.no_grad()
def redraw_zero_parameters(model: nn.Module, seed: int) -> list[str]:
    """Redraw every parameter that is entirely zero, in place; return the names. The same seed gives the same weights.

    Matrices get half the deviation that keeps a variance, vectors 0.1. The last projection of a sampler
    or MLP is drawn such that it adds about three times the length of its start: of unit variance per channel, or of
    length 1 if normalised."""
    generator = torch.Generator().manual_seed(seed)
    last = _last_deviations(model)
    redrawn = []
    for name, parameter in model.named_parameters():
        if parameter.any():
            continue
        usual = 0.1 if parameter.ndim < 2 else 0.5 * parameter[0].numel() ** -0.5
        parameter.copy_(torch.randn(parameter.shape, generator=generator) * last.get(id(parameter), usual))
        redrawn.append(name)
    return redrawn


def _last_deviations(model: nn.Module) -> dict[int, float]:
    """By identity of the parameter. The bias, a drift that no text can change, stays far below the matrix's part."""
    deviations = {}
    for head in model.modules():
        if isinstance(head, Sampler | ResidualMlp):
            start = 1.0 if head.start == "raw" else math.sqrt(1.0 / head.width)
            step = WALK * start / (sum(head.schedule.chi) if isinstance(head, Sampler) else 1.0)
            linear = head.network.final.linear if isinstance(head, Sampler) else head.last
            deviations[id(linear.weight)] = step * math.sqrt(1.0 / head.width)
            deviations[id(linear.bias)] = 0.1 * step
    return deviations
