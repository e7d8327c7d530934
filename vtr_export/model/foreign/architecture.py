"""The shapes of CLIP's weights -> its architecture, and the open_clip names that it may have."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

from torch import Tensor

from vtr_runtime.errors import CheckpointError, ConfigError

from ..config import BackboneConfig
from ..open_clip_format import supported_open_clip_names
from .families import Found

_RESNET = "visual.layer1.0.conv1.weight"
_RESNET_STRIDE = 32


@dataclass(frozen=True)
class Shapes:
    """All that shapes say. Numbers of heads and activations leave no trace in them."""

    embed_dim: int
    image_size: int
    vision_layers: int | tuple[int, ...]
    vision_width: int
    vision_mlp: int | None  # hidden channels; None for a ModifiedResNet
    patch_size: int | None  # None for a ModifiedResNet
    context_length: int
    vocab_size: int
    text_width: int
    text_layers: int
    text_mlp: int

    @classmethod
    def of_weights(cls, weights: Mapping[str, Tensor], prefix: str = "") -> Shapes:
        """Weights by the names of open_clip.CLIP. Raises CheckpointError, of a name with `prefix` before it."""

        def shape(name: str, axes: int) -> tuple[int, ...]:
            if name not in weights:
                raise CheckpointError(f"{prefix}{name} is missing")
            if weights[name].ndim != axes:
                raise CheckpointError(f"{prefix}{name} has shape {list(weights[name].shape)} instead of {axes} axes")
            return tuple(weights[name].shape)

        def side(name: str) -> int:
            places = shape(name, 2)[0] - 1
            if places < 1 or math.isqrt(places) ** 2 != places:
                raise CheckpointError(f"{prefix}{name} has {places + 1} rows, which are not a square and one")
            return math.isqrt(places)

        if _RESNET in weights:
            stages = tuple(_count(weights, rf"visual\.layer{stage}\.(\d+)\.") for stage in (1, 2, 3, 4))
            vision = {
                "image_size": _RESNET_STRIDE * side("visual.attnpool.positional_embedding"),
                "vision_layers": stages,
                "vision_width": shape(_RESNET, 4)[0],
                "vision_mlp": None,
                "patch_size": None,
            }
        else:
            width, _, _, patch = shape("visual.conv1.weight", 4)
            vision = {
                "image_size": patch * side("visual.positional_embedding"),
                "vision_layers": _count(weights, r"visual\.transformer\.resblocks\.(\d+)\."),
                "vision_width": width,
                "vision_mlp": shape("visual.transformer.resblocks.0.mlp.c_fc.weight", 2)[0],
                "patch_size": patch,
            }
        context, text_width = shape("positional_embedding", 2)
        return cls(
            embed_dim=shape("text_projection", 2)[1],
            **vision,  # type: ignore[arg-type]
            context_length=context,
            vocab_size=shape("token_embedding.weight", 2)[0],
            text_width=text_width,
            text_layers=_count(weights, r"transformer\.resblocks\.(\d+)\."),
            text_mlp=shape("transformer.resblocks.0.mlp.c_fc.weight", 2)[0],
        )

    @classmethod
    def of_config(cls, config: BackboneConfig) -> Shapes:
        vision, text = config.vision, config.text
        step = vision.patch_size or _RESNET_STRIDE
        return cls(
            embed_dim=config.embed_dim,
            image_size=vision.image_size // step * step,  # pixels beyond the last whole patch are not seen
            vision_layers=vision.layers,
            vision_width=vision.width,
            vision_mlp=int(vision.width * vision.mlp_ratio) if vision.patch_size else None,
            patch_size=vision.patch_size,
            context_length=text.context_length,
            vocab_size=text.vocab_size,
            text_width=text.width,
            text_layers=text.layers,
            text_mlp=int(text.width * text.mlp_ratio),
        )

    def difference(self, other: Shapes) -> str | None:
        """The first quantity in which they differ, in words: its name, the own value and the other's."""
        for (key, own), theirs in zip(asdict(self).items(), asdict(other).values(), strict=True):
            if own != theirs:
                return f"{key} is {own}, not {theirs}"
        return None


def openai_backbone(shapes: Shapes) -> BackboneConfig:
    """As openai/CLIP builds it: heads of 64 channels, MLPs four times as wide, QuickGELU. Raises ConfigError."""
    vision = {"image_size": shapes.image_size, "layers": shapes.vision_layers, "width": shapes.vision_width}
    text = {"context_length": shapes.context_length, "vocab_size": shapes.vocab_size, "width": shapes.text_width}
    backbone = BackboneConfig.from_open_clip(
        {
            "embed_dim": shapes.embed_dim,
            "quick_gelu": True,
            "vision_cfg": vision | ({"patch_size": shapes.patch_size} if shapes.patch_size else {}),
            "text_cfg": {**text, "layers": shapes.text_layers, "heads": shapes.text_width // 64},
        }
    )
    for name in names_that_fit(shapes):
        known = BackboneConfig.from_open_clip(name)
        if known == backbone.model_copy(update={"name": known.name}):
            return known
    return backbone


def names_that_fit(shapes: Shapes) -> list[str]:
    """The open_clip models with weights of these shapes."""
    names = supported_open_clip_names()
    return [name for name in names if Shapes.of_config(BackboneConfig.from_open_clip(name)) == shapes]


def choose_backbone(found: Found, model: str | None) -> BackboneConfig:
    """The architecture of `found`, which is `model` (a name or .json file of open_clip's) where that is given.

    Raises CheckpointError for weights that are no CLIP, ConfigError where the name is wrong or wanting."""
    try:
        shapes = Shapes.of_weights(found.towers, found.prefix)
    except CheckpointError as error:
        raise CheckpointError(
            f"{found.path} names its weights as {found.family} does, but {error}; give the whole weights of a CLIP"
        ) from error
    if model is None:
        if found.quick_gelu:
            return openai_backbone(shapes)
        raise ConfigError(
            f"{found.path} holds the weights of a CLIP model by the names of {found.family}, which do not say whether "
            f"it was trained with GELU or QuickGELU; say which: --open-clip NAME --pretrained {found.path} "
            f"({_suggest(names_that_fit(shapes))})"
        )
    backbone = BackboneConfig.from_open_clip(model)
    difference = shapes.difference(Shapes.of_config(backbone))
    if difference:
        raise ConfigError(
            f"{found.path} is not of the model {model}: its {difference}; {_suggest(names_that_fit(shapes))}"
        )
    refuse_other_training(found, backbone)
    return backbone


def refuse_other_training(found: Found, backbone: BackboneConfig) -> None:
    """Raise ConfigError where the family is known to have other activations or heads: it would load, and be worse."""
    if not found.quick_gelu:
        return
    refuse_other_activation(f"{found.path}, a file of {found.family}'s,", True, backbone)
    heads = (backbone.vision.heads, backbone.text.heads)
    channels = backbone.vision.width if backbone.vision.patch_size else _RESNET_STRIDE * backbone.vision.width
    wanted = (channels // 64, backbone.text.width // 64)
    if heads != wanted:
        raise ConfigError(
            f"{found.path}, a file of {found.family}'s, has {wanted} attention heads (vision, text), but the "
            f"model {backbone.name} has {heads}; use an open_clip name of the same heads"
        )


def refuse_other_activation(what: str, quick_gelu: bool, backbone: BackboneConfig) -> None:
    """Raise ConfigError where `what` was not trained with the activation of the model's name."""
    if quick_gelu != backbone.quick_gelu:
        base = backbone.name.removesuffix("-quickgelu")
        other = f"{base}-quickgelu" if quick_gelu else base
        raise ConfigError(f"{what} was trained with quick_gelu={quick_gelu}; use the model name {other}")


def _suggest(names: Iterable[str]) -> str:
    listed = ", ".join(names)
    if listed:
        return f"its shapes fit {listed}"
    return "its shapes fit no model of open_clip's; give --open-clip a .json file in open_clip's format"


def _count(weights: Mapping[str, Tensor], pattern: str) -> int:
    """How many different numbers stand where the pattern has its group."""
    return len({match[1] for match in map(re.compile(pattern).match, weights) if match})
