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
from .embed import evaluating
from .losses import same_rows
from .objective import BatchFeatures, Objective, gap_loss, total
from .recipe import Recipe


def train_step(
    model: RetrievalModel,
    objective: Objective,
    optimizer: AdamW,
    split: Split,
    batch: Batch,
    recipe: Recipe,
    *,
    pretraining: bool = False,
) -> dict[str, float]:
    """One update; returns the loss, its terms as `loss_<term>`, and the gradient's norm before clipping.

    `pretraining`: the alignment network learns the gap, everything else stands still. VtrError for a loss or gradient
    that is not finite: the weights are then those before the step."""
    if pretraining:
        with evaluating(model):  # batch statistics stand still too
            features = encode_batch(model, split, batch, recipe)
        terms = gap_loss(model, features, recipe.loss.gap.loss)
    else:
        features = encode_batch(model, split, batch, recipe)
        terms = objective(model, features)
    loss = total(terms)
    if not math.isfinite(float(loss.detach())):
        raise VtrError(f"the loss is {float(loss.detach())}{_described(terms)}: {MEND}")
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    trained = [value for group in optimizer.param_groups for value in group["params"]]
    norm = float(torch.nn.utils.clip_grad_norm_(trained, recipe.optim.clip_norm))
    if not math.isfinite(norm):
        raise VtrError(f"the gradient is {norm}{_described(terms)}: {MEND}")
    optimizer.step()
    model.clamp_logit_scale()
    values = {f"loss_{name}": float(term.detach()) for name, term in terms.items()}
    return {"loss": float(loss.detach()), **values, "grad_norm": norm}


MEND = "training has diverged; lower optim.lr and optim.clip_lr"


def _described(terms: dict[str, Tensor]) -> str:
    return " (" + ", ".join(f"{name} {float(term.detach()):.4g}" for name, term in terms.items()) + ")"


def encode_batch(model: RetrievalModel, split: Split, batch: Batch, recipe: Recipe) -> BatchFeatures:
    """Both towers on the clips and captions of a batch."""
    device, rows = model.logit_scale.device, batch.clips
    captions = split.first_captions[rows] + batch.captions
    ids = Tokenizer.trim(split.ids[captions])
    tokens = torch.from_numpy(ids).to(device)
    mask = torch.from_numpy(split.frames.mask[rows]).to(device)
    if split.features is not None:
        features = torch.from_numpy(np.array(split.features[rows])).to(device)
    else:
        encode = encode_distinct_frames if recipe.batches.distinct_frames else encode_frames
        features = encode(model, torch.from_numpy(split.frames.pixels[rows]), device)
    video, frames = model.video.embed(features, mask)
    text = model.text.with_words(tokens)
    weights = text.word_mask.float()
    if split.word_weights is not None:
        weights = torch.from_numpy(split.word_weights[captions, : ids.shape[1]]).to(device, torch.float32)
    same = same_rows(torch.from_numpy(split.videos[rows]).to(device), tokens)
    return BatchFeatures(video, frames, mask, text, weights, same)


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
