"""Embeddings of whole sets, from a PyTorch model or a bundle: what validation and evaluation rank."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vtr_export.model.config import ModelConfig
from vtr_export.model.retrieval import RetrievalModel
from vtr_export.tokenizer import write_tokenizer
from vtr_runtime.errors import MediaError
from vtr_runtime.manifest import TextSpec
from vtr_runtime.text import Tokenizer

from .data.clip import Clip
from .data.frame_cache import read_all
from .data.parts_of_speech import choose_tagger
from .data.split import Split, caption_rows
from .data.word_weights import word_weights

if TYPE_CHECKING:
    from vtr_runtime import Model

VIDEO_BATCH = 32
TEXT_BATCH = 64

Embeddings = NDArray[np.float32]


@dataclass(frozen=True)
class Tokens:
    """What a second stage sees beside the embeddings; all vectors have norm 1, or are zero where masked."""

    words: Embeddings  # [captions, L, D]
    word_weights: NDArray[np.float32]  # [captions, L] 0 where masked, 2 for important words, else 1
    frames: Embeddings  # [clips, T, D]
    frame_mask: NDArray[np.bool_]  # [clips, T]


@dataclass(frozen=True)
class EmbeddedSplit:
    """Unit embeddings of the readable clips and of all their captions."""

    clips: tuple[Clip, ...]
    video: Embeddings  # [clips, D]
    text: Embeddings  # [captions, D]
    owners: NDArray[np.int64]  # [captions] the clip that each belongs to
    unreadable: tuple[str, ...]  # one sentence each
    tokens: Tokens | None = None


def embed_with_torch(
    model: RetrievalModel, clips: Sequence[Clip], *, tokens: bool = False, tagger: str = "auto"
) -> EmbeddedSplit:
    """Embed with PyTorch, on the device where the model is. Unreadable clips are left out and listed.

    `tokens` keeps words and frames too; `tagger` weighs the words where the model's second stage does."""
    kept: list[Clip] = []
    unreadable: list[str] = []

    def batches() -> Iterator[tuple[NDArray[np.uint8], NDArray[np.bool_]]]:
        waiting = []
        for clip, frames in zip(clips, read_all(clips, model.config.frames), strict=True):
            if isinstance(frames, str):
                unreadable.append(frames)
                continue
            kept.append(clip)
            waiting.append(frames)
            if len(waiting) == VIDEO_BATCH:
                yield np.stack([item.pixels for item in waiting]), np.stack([item.mask for item in waiting])
                waiting.clear()
        if waiting:
            yield np.stack([item.pixels for item in waiting]), np.stack([item.mask for item in waiting])

    with evaluating(model):
        video, frames, mask = _embed_videos(model, batches(), tokens)
        _refuse_nothing(kept, unreadable)
        captions, owners = caption_rows(kept)
        tokenizer = make_tokenizer(model.config)
        ids = tokenizer.encode(captions)
        given = None
        if tokens and model.config.rerank.weighs_words:
            given = word_weights(captions, ids, tokenizer, choose_tagger(tagger))
        text, words, weights = _embed_texts(model, ids, given, TEXT_BATCH, tokens)
    kept_tokens = Tokens(words, weights, frames, mask) if tokens else None
    return EmbeddedSplit(tuple(kept), video, text, owners, tuple(unreadable), kept_tokens)


def embed_split(model: RetrievalModel, split: Split, *, batch: int, tokens: bool = False) -> EmbeddedSplit:
    """Embed a split that is in memory; from its features, where it has them."""
    frames, source = split.frames, split.frames.pixels if split.features is None else split.features
    batches = ((source[rows], frames.mask[rows]) for rows in spans(len(frames.clips), batch))
    with evaluating(model):
        video, per_frame, mask = _embed_videos(model, batches, tokens)
        text, words, weights = _embed_texts(model, split.ids, split.word_weights, batch, tokens)
    kept = Tokens(words, weights, per_frame, mask) if tokens else None
    return EmbeddedSplit(frames.clips, video, text, split.owners, frames.unreadable, kept)


def embed_with_runtime(model: Model, clips: Sequence[Clip]) -> EmbeddedSplit:
    """Embed through `vtr_runtime`, as a host does, on whatever backend. Unreadable clips are left out and listed."""
    embed = _stored_through_runtime if any(clip.stored for clip in clips) else _videos_through_runtime
    done = list(zip(clips, embed(model, clips), strict=True))
    kept = tuple(clip for clip, found in done if not isinstance(found, str))
    rows = [found for _, found in done if not isinstance(found, str)]
    unreadable = tuple(found for _, found in done if isinstance(found, str))
    _refuse_nothing(kept, unreadable)
    captions, owners = caption_rows(kept)
    return EmbeddedSplit(kept, np.stack(rows), model.encode_texts(captions), owners, unreadable)


def _videos_through_runtime(model: Model, clips: Sequence[Clip]) -> Iterator[Embeddings | str]:
    from vtr_runtime.clips import Clip as Part

    for found in model.embed_clips(Part(clip.video, clip.start, clip.end) for clip in clips):
        yield found.message if found.embedding is None else found.embedding


def _stored_through_runtime(model: Model, clips: Sequence[Clip]) -> Iterator[Embeddings | str]:
    """Of frames that were sampled before: all but the decoding is the host's."""
    for rows in spans(len(clips), VIDEO_BATCH):
        read = list(read_all(clips[rows], model.manifest.frames))
        there = [frames for frames in read if not isinstance(frames, str)]
        pixels, masks = [frames.pixels for frames in there], [frames.mask for frames in there]
        embedded = iter(model.encode_frames(np.stack(pixels), np.stack(masks)) if there else ())
        yield from (frames if isinstance(frames, str) else next(embedded) for frames in read)


def embed_captions(model: RetrievalModel, captions: Sequence[str]) -> Embeddings:
    """Sentences alone: float32 [M, D], unit length."""
    with evaluating(model):
        return _embed_texts(model, make_tokenizer(model.config).encode(captions), None, TEXT_BATCH, tokens=False)[0]


def make_tokenizer(config: ModelConfig) -> Tokenizer:
    """The model's tokenizer, the one that its bundle will hold."""
    return tokenizer_of(config.text)


@cache  # it takes a second to spell Unicode's classes out
def tokenizer_of(spec: TextSpec) -> Tokenizer:
    """The tokenizer that a bundle with this text contract holds."""
    with TemporaryDirectory() as scratch:
        path = Path(scratch) / "tokenizer.json"
        write_tokenizer(path, context_length=spec.context_length, cleaning=spec.cleaning)
        return Tokenizer.from_file(path, spec)


def spans(count: int, size: int) -> Iterator[slice]:
    return (slice(start, start + size) for start in range(0, count, size))


@contextmanager
def evaluating(model: RetrievalModel) -> Iterator[None]:
    """Evaluation mode and no gradients inside; every part's own mode again after it."""
    before = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in before.items():
            module.training = mode


def _embed_videos(
    model: RetrievalModel, batches: Iterable[tuple[NDArray[np.generic], NDArray[np.bool_]]], tokens: bool
) -> tuple[Embeddings, Embeddings, NDArray[np.bool_]]:
    """Batches of frames uint8 [B, T, S, S, 3] or features float32 [B, T, D], with masks -> embeddings [N, D], frame
    embeddings [N, T, D] (empty without `tokens`) and masks [N, T]."""
    device, width = model.logit_scale.device, model.config.backbone.embed_dim
    videos, frames, masks = [], [], []
    for source, mask in batches:
        given, valid = _tensor(source, device), _tensor(mask, device)
        features = model.video.encode_frames(given) if given.ndim == 5 else given
        video, per_frame = model.video.embed(features, valid)
        videos.append(video.float().cpu().numpy())
        if tokens:
            frames.append(per_frame.float().cpu().numpy())
            masks.append(np.array(mask))
    return _joined(videos, (0, width)), _joined(frames, (0, 0, width)), _joined(masks, (0, 0))


def _embed_texts(
    model: RetrievalModel, ids: NDArray[np.int32], weights: NDArray[np.uint8] | None, batch: int, tokens: bool
) -> tuple[Embeddings, Embeddings, NDArray[np.float32]]:
    """Token ids int32 [N, L] -> embeddings [N, D], words [N, L', D] and their weights [N, L'], cut to the longest row;
    the last two empty without `tokens`."""
    device, width = model.logit_scale.device, model.config.backbone.embed_dim
    texts, words, masks = [], [], []
    ids = Tokenizer.trim(ids) if len(ids) else ids
    for rows in spans(len(ids), batch):
        if not tokens:
            texts.append(model.text(_tensor(ids[rows], device)).float().cpu().numpy())
            continue
        found = model.text.with_words(_tensor(ids[rows], device))
        texts.append(found.embedding.float().cpu().numpy())
        words.append(found.words.float().cpu().numpy())
        masks.append(found.word_mask.float().cpu().numpy())
    mask = _joined(masks, (0, 0))
    if tokens and weights is not None:
        mask = weights[:, : mask.shape[1]].astype(np.float32)
    return _joined(texts, (0, width)), _joined(words, (0, 0, width)), mask


def _joined(parts: list[NDArray[Any]], empty: tuple[int, ...]) -> NDArray[Any]:
    return np.concatenate(parts) if parts else np.zeros(empty, np.float32)


def _refuse_nothing(kept: Sequence[Clip], unreadable: Sequence[str]) -> None:
    if not kept:
        raise MediaError(f"none of the {len(unreadable)} clips can be read; the first: {unreadable[0]}")


def _tensor(array: NDArray[np.generic], device: torch.device) -> Tensor:
    return torch.from_numpy(np.array(array)).to(device)  # a copy: torch wants writable memory, the cache is read-only
