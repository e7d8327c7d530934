"""A retrieval model from open_clip's weights, without training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vtr_runtime.errors import CheckpointError, ConfigError
from vtr_runtime.sampling import Sampling

from .config import AlignmentConfig, BackboneConfig, ModelConfig, RerankConfig, TemporalConfig
from .foreign.architecture import refuse_other_activation, refuse_other_training
from .foreign.families import recognise
from .foreign.opening import load_towers
from .foreign.state_dict import read_state_dict
from .retrieval import RetrievalModel


def from_open_clip(
    name: str | Path | Mapping[str, Any],
    *,
    pretrained: str | Path | None,
    temporal: TemporalConfig | None = None,
    alignment: AlignmentConfig | None = None,
    rerank: RerankConfig | None = None,
    frames: int = 12,
    sampling: Sampling = "uniform",
) -> RetrievalModel:
    """Build a model on an open_clip backbone (see BackboneConfig.from_open_clip for `name`).

    `pretrained` is a tag of open_clip, a file with the weights of open_clip's, OpenAI's or Hugging Face's CLIP, or None
    for random weights, to be asked for in so many words. Raises ConfigError for what cannot be built, CheckpointError
    for weights that cannot be had."""
    backbone = BackboneConfig.from_open_clip(name)
    file = None
    if pretrained is not None:
        file, preprocess = _weights_file(backbone, pretrained)
        backbone = backbone.model_copy(update=preprocess)
    config = ModelConfig.from_backbone(
        backbone, frames=frames, sampling=sampling, temporal=temporal, alignment=alignment, rerank=rerank
    )
    model = RetrievalModel(config)
    if file is not None:
        _load(model, file)
    return model.eval()


def _load(model: RetrievalModel, file: Path) -> None:
    found = recognise(read_state_dict(file), file)
    if found.family == "CLIP4Clip":
        raise CheckpointError(
            f"{file} is a CLIP4Clip checkpoint, with a temporal head of its own; export it with --ckpt {file}"
        )
    refuse_other_training(found, model.config.backbone)
    load_towers(model, found)
    model.initialise_temporal_head()


def _weights_file(backbone: BackboneConfig, pretrained: str | Path) -> tuple[Path, dict[str, Any]]:
    """The local file of a tag or path, and the pixel normalisation that goes with a tag."""
    if Path(pretrained).is_file():
        return Path(pretrained), {}

    import open_clip
    from open_clip.pretrained import download_pretrained, get_pretrained_cfg

    tags = open_clip.list_pretrained_tags_by_model(backbone.name)
    settings = get_pretrained_cfg(backbone.name, str(pretrained))
    if not settings:
        known = f"its tags are {', '.join(tags)}" if tags else "it has no tags"
        raise ConfigError(f"'{pretrained}' is neither a file nor a tag of {backbone.name}; {known}")
    _refuse_other_training(backbone, str(pretrained), settings)
    try:
        file = Path(download_pretrained(settings))
    except Exception as error:  # whatever a download raises: sockets, HTTP, the hub's own errors
        raise CheckpointError(
            f"the weights {backbone.name}/{pretrained} could not be downloaded ({type(error).__name__}: "
            f"{str(error).splitlines()[0] if str(error) else 'no reason given'}); "
            f"check the network, or download them elsewhere and give the file"
        ) from error
    return file, {key: tuple(settings[key]) for key in ("mean", "std")}


def _refuse_other_training(backbone: BackboneConfig, tag: str, settings: Mapping[str, Any]) -> None:
    """A tag that was trained with other activations or pixels would load and be quietly worse."""
    refuse_other_activation(tag, bool(settings.get("quick_gelu", False)), backbone)
    for key, wanted in (("interpolation", "bicubic"), ("resize_mode", "shortest")):
        if settings.get(key, wanted) != wanted:
            raise ConfigError(f"{tag} prepares images with {key} {settings[key]!r}; only {wanted!r} is supported")
