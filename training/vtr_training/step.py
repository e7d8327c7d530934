"""One update of the weights."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.optim import AdamW

from vtr_export.model.retrieval import RetrievalModel
from vtr_runtime.errors import VtrError
from vtr_runtime.text import Tokenizer

from .data.batches import Batch
from .data.split import Split
from .losses import bsl, info_nce, same_rows
from .recipe import Recipe


def train_step(
    model: RetrievalModel, optimizer: AdamW, split: Split, batch: Batch, recipe: Recipe, device: torch.device
) -> tuple[float, float]:
    """One update; returns the loss and the gradient's norm before clipping."""
    rows = batch.clips
    tokens = torch.from_numpy(Tokenizer.trim(split.ids[split.first_captions[rows] + batch.captions])).to(device)
    frames = torch.from_numpy(split.frames.pixels[rows])
    mask = torch.from_numpy(split.frames.mask[rows]).to(device)
    same = same_rows(torch.from_numpy(rows).to(device), tokens)

    encode = encode_distinct_frames if recipe.batches.distinct_frames else encode_frames
    features = encode(model, frames, device)
    video, text = model.video.temporal(features, mask)[0], model.text(tokens)
    loss = info_nce(video, text, model.logit_scale.exp(), same)
    if recipe.loss.bsl:
        loss = loss + recipe.loss.bsl * bsl(video, text, same, temperature=recipe.loss.bsl_temperature)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    norm = float(torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.optim.clip_norm))
    if not math.isfinite(norm):
        raise VtrError(f"the gradient is {norm}: training has diverged; lower optim.lr and optim.clip_lr")
    optimizer.step()
    model.clamp_logit_scale()
    return float(loss.detach()), norm


def encode_frames(model: RetrievalModel, frames: Tensor, device: torch.device) -> Tensor:
    """uint8 [B, T, S, S, 3] -> the image tower's features [B, T, D]."""
    return model.video.encode_frames(frames.to(device))


def encode_distinct_frames(model: RetrievalModel, frames: Tensor, device: torch.device) -> Tensor:
    """The same, but frames that are equal go through the image tower once: the clips of a group may share all theirs.

    Batch normalisation then counts such a frame once; nothing else changes."""
    numbers: dict[bytes, int] = {}
    flat = frames.flatten(0, 1)
    index = [numbers.setdefault(frame.tobytes(), len(numbers)) for frame in flat.numpy()]
    first = torch.from_numpy(np.unique(index, return_index=True)[1])
    features = model.video.encode_frames(flat[first].to(device)[None])[0]
    return features[torch.tensor(index, device=device).reshape(frames.shape[:2])]
