"""Embeddings of whole sets, from a PyTorch model or a bundle: what validation and evaluation rank."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vtr_export.model.checkpoint import load_checkpoint
from vtr_export.model.config import ModelConfig
from vtr_export.model.retrieval import RetrievalModel
from vtr_export.tokenizer import write_tokenizer
from vtr_runtime.errors import MediaError
from vtr_runtime.text import Tokenizer

from .data.frame_cache import read_all
from .data.jsonl import Clip
from .data.split import caption_rows

if TYPE_CHECKING:
    from vtr_runtime import Model

VIDEO_BATCH = 32
TEXT_BATCH = 64

Embeddings = NDArray[np.float32]


@dataclass(frozen=True)
class EmbeddedSplit:
    """Unit embeddings of the readable clips and of all their captions."""

    clips: tuple[Clip, ...]
    video: Embeddings  # [clips, D]
    text: Embeddings  # [captions, D]
    owners: NDArray[np.int64]  # [captions] the clip that each belongs to
    unreadable: tuple[str, ...]  # one sentence each


def embed_with_checkpoint(path: Path, clips: Sequence[Clip]) -> EmbeddedSplit:
    """Embed with PyTorch, on cuda where there is one. Unreadable clips are left out and listed."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return embed_with_torch(load_checkpoint(path).model.to(device), clips)


def embed_with_torch(model: RetrievalModel, clips: Sequence[Clip]) -> EmbeddedSplit:
    """The same with a model that is loaded already, on the device where it is."""
    device = model.logit_scale.device
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

    video = embed_videos(model, batches(), device)
    _refuse_nothing(kept, unreadable)
    captions, owners = caption_rows(kept)
    text = embed_ids(model, make_tokenizer(model.config).encode(captions), TEXT_BATCH, device)
    return EmbeddedSplit(tuple(kept), video, text, owners, tuple(unreadable))


def embed_with_bundle(path: Path, clips: Sequence[Clip]) -> EmbeddedSplit:
    """Embed through `vtr_runtime`, as a host does. Unreadable clips are left out and listed."""
    from vtr_runtime import load

    return embed_with_runtime(load(path), clips)


def embed_with_runtime(model: Model, clips: Sequence[Clip]) -> EmbeddedSplit:
    """The same with a bundle that is loaded already, on whatever backend."""
    from vtr_runtime.model import Clip as Part

    parts = (Part(clip.video, clip.start, clip.end) for clip in clips)
    done = list(zip(clips, model.embed_clips(parts), strict=True))
    kept = tuple(clip for clip, found in done if found.embedding is not None)
    rows = [found.embedding for _, found in done if found.embedding is not None]
    unreadable = tuple(found.message for _, found in done if found.embedding is None)
    _refuse_nothing(kept, unreadable)
    captions, owners = caption_rows(kept)
    return EmbeddedSplit(kept, np.stack(rows), model.encode_texts(captions), owners, unreadable)


def make_tokenizer(config: ModelConfig) -> Tokenizer:
    """The model's tokenizer, the one that its bundle will hold."""
    with TemporaryDirectory() as scratch:
        path = Path(scratch) / "tokenizer.json"
        write_tokenizer(path, context_length=config.text.context_length, cleaning=config.text.cleaning)
        return Tokenizer.from_file(path, config.text)


def embed_videos(
    model: RetrievalModel, batches: Iterable[tuple[NDArray[np.uint8], NDArray[np.bool_]]], device: torch.device
) -> Embeddings:
    """Batches of frames uint8 [B, T, S, S, 3] and mask bool [B, T] -> float32 [N, D], unit length."""
    return _embed(model, ((_tensor(frames, device), _tensor(mask, device)) for frames, mask in batches), model.video)


def embed_ids(model: RetrievalModel, ids: NDArray[np.int32], batch: int, device: torch.device) -> Embeddings:
    """Token ids int32 [N, L] -> float32 [N, D], unit length."""
    return _embed(model, ((_tensor(ids[rows], device),) for rows in spans(len(ids), batch)), model.text)


def spans(count: int, size: int) -> Iterator[slice]:
    return (slice(start, start + size) for start in range(0, count, size))


def _embed(model: RetrievalModel, batches: Iterable[tuple[Tensor, ...]], tower: Callable[..., Tensor]) -> Embeddings:
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        parts = [tower(*batch).float().cpu().numpy() for batch in batches]
    model.train(was_training)
    return np.concatenate(parts) if parts else np.zeros((0, model.config.backbone.embed_dim), np.float32)


def _refuse_nothing(kept: Sequence[Clip], unreadable: Sequence[str]) -> None:
    if not kept:
        raise MediaError(f"none of the {len(unreadable)} clips can be read; the first: {unreadable[0]}")


def _tensor(array: NDArray[np.generic], device: torch.device) -> Tensor:
    return torch.from_numpy(np.array(array)).to(device)  # a copy: torch wants writable memory, the cache is read-only
