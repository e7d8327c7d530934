"""A batch on its way through the towers, whole or in parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vtr_export.model.retrieval import RetrievalModel
from vtr_export.model.text_tower import TextFeatures
from vtr_runtime.text import Tokenizer

from .data.batches import Batch, Rows
from .data.split import Split
from .losses import same_rows
from .objective import BatchFeatures
from .recipe import Recipe


class Features(NamedTuple):
    """What the towers make of B pairs, as in BatchFeatures; in float32 at least, whatever they computed in."""

    video: Tensor  # [B, D]
    frames: Tensor  # [B, T, D]
    raw: Tensor  # [B, D]
    text: Tensor  # [B, D]
    words: Tensor  # [B, L, D]


@dataclass(frozen=True)
class BatchInput:
    """What is known of B pairs before any tower has run; the frames stay on the disk until their part's turn."""

    rows: Rows  # [B]
    tokens: Tensor  # int32 [B, L], cut to the longest caption of the batch, so that all its parts have one length
    frame_mask: Tensor  # bool [B, T]
    word_mask: Tensor  # bool [B, L]
    word_weights: Tensor  # float [B, L]
    same: Tensor  # bool [B, B]

    @classmethod
    def of(cls, model: RetrievalModel, split: Split, batch: Batch) -> BatchInput:
        device, rows = model.logit_scale.device, batch.clips
        captions = split.first_captions[rows] + batch.captions
        ids = Tokenizer.trim(split.ids[captions])
        tokens = torch.from_numpy(ids).to(device)
        word_mask = model.text.backbone.word_mask(tokens)
        weights = word_mask.float()
        if split.word_weights is not None:
            weights = torch.from_numpy(split.word_weights[captions, : ids.shape[1]]).to(device, torch.float32)
        same = same_rows(torch.from_numpy(split.videos[rows]).to(device), tokens)
        mask = torch.from_numpy(split.frames.mask[rows]).to(device)
        return cls(rows, tokens, mask, word_mask, weights, same)

    def joined(self, made: Features) -> BatchFeatures:
        text = TextFeatures(made.raw, made.text, made.words, self.word_mask)
        return BatchFeatures(made.video, made.frames, self.frame_mask, text, self.word_weights, self.same)


def encode_part(model: RetrievalModel, split: Split, given: BatchInput, part: slice, recipe: Recipe) -> Features:
    """Both towers on the pairs `part` of a batch."""
    device, rows = model.logit_scale.device, given.rows[part]
    if split.features is not None:
        features = torch.from_numpy(np.array(split.features[rows])).to(device)
    else:
        encode = encode_distinct_frames if recipe.batches.distinct_frames else encode_frames
        features = encode(model, torch.from_numpy(split.frames.pixels[rows]), device)
    video, frames = model.video.embed(features, given.frame_mask[part])
    text = model.text.with_words(given.tokens[part])
    made = (video, frames, text.raw, text.embedding, text.words)
    return Features(*(value.float() if value.dtype in (torch.float16, torch.bfloat16) else value for value in made))


def encode_batch(model: RetrievalModel, split: Split, batch: Batch, recipe: Recipe) -> BatchFeatures:
    """Both towers on a whole batch, in one graph."""
    given = BatchInput.of(model, split, batch)
    return given.joined(encode_part(model, split, given, slice(None), recipe))


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
