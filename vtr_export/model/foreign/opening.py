"""A checkpoint of any known family -> a retrieval model."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vtr_runtime.errors import CheckpointError, ConfigError
from vtr_runtime.sampling import Sampling

from ..backbone import load_open_clip_state_dict
from ..checkpoint import FORMAT, Checkpoint, parse_checkpoint
from ..config import BackboneConfig, ModelConfig
from ..retrieval import RetrievalModel
from .architecture import choose_backbone
from .clip4clip_head import Head, load_head, read_head
from .families import Found, recognise
from .state_dict import read_content, state_dict_of


def open_any_checkpoint(
    path: Path, *, model: str | None = None, frames: int = 12, sampling: Sampling = "uniform"
) -> tuple[RetrievalModel, str]:
    """The model of a file, in float32 and evaluation mode, and what the file was recognised as, for the user.

    Known are checkpoints of vtr-train, CLIP4Clip (meanP, seqLSTM, seqTransf), OpenAI, open_clip and Hugging Face's
    CLIPModel; the last two hold no trace of their activation and need `model`, a name or .json file of open_clip's,
    with which the others must agree. `frames` is T of a model that has none of its own, all but vtr-train's, and
    `sampling` which frames it was trained on.
    Raises CheckpointError for a file that is none of these, damaged or not finite, ConfigError for a wrong `model` or
    `frames`. No code in the file is run."""
    content = read_content(path)
    if _is_own(content):
        if model is not None:
            raise ConfigError(f"{path} was written by vtr-train and names its own model; leave {model} out")
        own = parse_checkpoint(content, path).model
        kinds = f"temporal {own.config.temporal.kind}, alignment {own.config.alignment.kind}"
        return own, f"vtr-train, {kinds}, on {_describe_backbone(own.config.backbone)}"
    found = recognise(state_dict_of(content, path), path)
    backbone = choose_backbone(found, model)
    head = read_head(found, frames) if found.family == "CLIP4Clip" else None
    temporal = head.config if head else None
    opened = RetrievalModel(ModelConfig.from_backbone(backbone, frames=frames, sampling=sampling, temporal=temporal))
    load_towers(opened, found)
    if head:
        load_head(opened.video.temporal, head, found)
    return opened.eval(), _describe(found, backbone, head)


def read_own_checkpoint(path: Path) -> Checkpoint | None:
    """The checkpoint where vtr-train wrote the file, else None. Raises CheckpointError for one that cannot be read."""
    content = read_content(path)
    return parse_checkpoint(content, path) if _is_own(content) else None


def _is_own(content: Any) -> bool:
    return isinstance(content, dict) and content.get("format") == FORMAT


def load_towers(model: RetrievalModel, found: Found) -> None:
    """Copy the weights of both towers and the logit scale. Raises CheckpointError for what does not fit, by name."""
    try:
        scale = load_open_clip_state_dict(model.video.backbone, model.text.backbone, found.towers, prefix=found.prefix)
    except CheckpointError as error:
        raise CheckpointError(f"{found.path}: {error}") from error
    with torch.no_grad():
        model.logit_scale.copy_(scale)


def _describe(found: Found, backbone: BackboneConfig, head: Head | None) -> str:
    parts: list[str] = [found.family]
    if head:
        depth = f" (blocks: {head.config.layers})" if head.config.kind == "transformer" else ""
        parts.append(f"{head.name}{depth}")
    parts.append(f"on {_describe_backbone(backbone)}")
    parts.append(_describe_weights([*found.towers.values(), *found.head.values()]))
    words = ", ".join(parts)
    return (
        f"{words}; left out, as {head.name} never reads it: {', '.join(head.unused)}" if head and head.unused else words
    )


def _describe_backbone(backbone: BackboneConfig) -> str:
    activation = "QuickGELU" if backbone.quick_gelu else "GELU"
    return f"{backbone.name} ({backbone.vision.image_size} pixels, D {backbone.embed_dim}, {activation})"


def _describe_weights(weights: Iterable[Tensor]) -> str:
    floating = [value for value in weights if value.is_floating_point()]
    dtypes = sorted({str(value.dtype).removeprefix("torch.") for value in floating})
    return f"{sum(value.numel() for value in floating) / 1e6:.1f} M weights in {' and '.join(dtypes)}"
