"""Reduced precision in training: the towers compute in it, everything that is kept stays in float32.

Weights, their gradients and AdamW's moments are float32; autocast converts weights for each product. Embeddings are
normalised in float32 (vtr_export.model.attention.unit), and the losses never run under autocast. float16 has a narrow
range: the loss is multiplied by a scale, which is halved whenever a gradient overflows; that step is left out."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch
from torch.amp import GradScaler

from .recipe import Precision

SMALLEST_SCALE = 1.0
"""A loss that overflows even without being enlarged has diverged."""

_TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """Products and convolutions inside run in `precision`."""
    return torch.autocast(device.type, _TYPES[precision], enabled=precision != "fp32")


def build_scaler(precision: Precision, device: torch.device) -> GradScaler:
    """Of the loss; it changes nothing but in fp16."""
    return GradScaler(device.type, enabled=precision == "fp16")
