"""AdamW in four groups (CLIP's parts and the new ones, with and without decay) under a warm-up and a cosine."""

from __future__ import annotations

import math

from torch import nn
from torch.optim import AdamW

from vtr_export.model.retrieval import RetrievalModel

from .recipe import OptimSettings

CLIP_PARTS = ("video.backbone.", "text.backbone.", "logit_scale")


def build_optimizer(model: RetrievalModel, objective: nn.Module, settings: OptimSettings) -> AdamW:
    """An optimizer over all parameters that are not frozen; each group keeps its peak rate as `peak_lr`."""
    named = [*model.named_parameters(), *((f"objective.{name}", value) for name, value in objective.named_parameters())]
    groups = []
    for is_clip, peak in ((True, settings.clip_lr), (False, settings.lr)):
        for decays, decay in ((True, settings.weight_decay), (False, 0.0)):
            chosen = [
                tensor
                for name, tensor in named
                if tensor.requires_grad and name.startswith(CLIP_PARTS) is is_clip and _decays(name, tensor) is decays
            ]
            if chosen:
                groups.append({"params": chosen, "lr": peak, "peak_lr": peak, "weight_decay": decay})
    return AdamW(groups, betas=settings.betas, eps=settings.eps, fused=True)


def set_rate(optimizer: AdamW, factor: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor


def rate_factor(step: int, steps: int, warmup: float) -> float:
    """Share of the peak rate at `step` (from 0): linear rise over the share `warmup`, then a half cosine."""
    rising = warmup * steps
    if step < rising:
        return (step + 1) / (rising + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1.0, steps - rising)))


def _decays(name: str, tensor: nn.Parameter) -> bool:
    """Matrices and kernels decay. Norms, biases, gains, scales (below two axes), positions and types do not."""
    return tensor.ndim >= 2 and "position" not in name and not name.endswith(".types")
