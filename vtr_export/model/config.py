"""What a model is made of, as frozen types that check themselves.

Only CLIP's own architectures are built here (Radford et al. 2021, "Learning transferable visual models from natural
language supervision"): a plain vision transformer or a ModifiedResNet beside a causal text transformer with CLIP's BPE.
Every other open_clip configuration is refused by name and reason."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, PositiveInt, SerializerFunctionWrapHandler, ValidationError, model_serializer
from pydantic import model_validator as validates

from vtr_runtime.errors import ConfigError
from vtr_runtime.manifest import OPENAI_MEAN, OPENAI_STD, FrameSpec, Record, TextSpec

from .open_clip_format import read_open_clip_config

Positive = Annotated[float, Field(gt=0)]
Beta = Annotated[float, Field(gt=0, lt=1)]


class VisionConfig(Record):
    """The image tower: a vision transformer when `layers` is one number, a ModifiedResNet when it is four."""

    image_size: int = Field(ge=16, le=1024, description="S, side of the square input in pixels")
    layers: PositiveInt | tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] = Field(
        description="blocks of a vision transformer, or the four stages of a ModifiedResNet (CLIP, section 2.4)"
    )
    width: int = Field(ge=2, description="channels of a ViT token, or of a ModifiedResNet's stem")
    head_width: PositiveInt = Field(default=64, description="channels of one attention head")
    mlp_ratio: Positive = Field(default=4.0, description="hidden channels of a ViT's MLP, over width (rounded down)")
    patch_size: PositiveInt | None = Field(default=None, description="side of a ViT's patch; None for a ModifiedResNet")

    @property
    def heads(self) -> int:
        """Attention heads of a ViT block, or of a ModifiedResNet's final pooling (which is 32 times as wide)."""
        return (self.width if isinstance(self.layers, int) else 32 * self.width) // self.head_width

    @validates(mode="after")
    def _fits_together(self) -> Self:
        if isinstance(self.layers, int):
            if self.patch_size is None or self.patch_size > self.image_size:
                raise ValueError(f"a ViT needs a patch_size of 1 to {self.image_size}, not {self.patch_size}")
            channels = self.width
        else:
            if self.patch_size is not None:
                raise ValueError(f"a ModifiedResNet has no patches, but patch_size is {self.patch_size}")
            if self.image_size % 32 or self.width % 2:
                raise ValueError(
                    f"a ModifiedResNet needs an image_size that 32 divides and an even width, "
                    f"not {self.image_size} and {self.width}"
                )
            channels = 32 * self.width
        if channels % self.head_width:
            raise ValueError(f"head_width {self.head_width} does not divide the {channels} channels of the attention")
        return self


class TextConfig(Record):
    """The text tower: a causal transformer, read at the first end-of-text token."""

    context_length: int = Field(default=77, ge=3, description="most ids of a sentence, start and end included")
    vocab_size: int = Field(default=49408, ge=3, description="rows of the token embedding")
    width: PositiveInt = Field(description="channels of a token")
    heads: PositiveInt = Field(description="attention heads of a block")
    layers: PositiveInt = Field(description="blocks")
    mlp_ratio: Positive = Field(default=4.0, description="hidden channels of the MLP, over width (rounded down)")

    @validates(mode="after")
    def _fits_together(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"{self.heads} heads do not divide the text width {self.width}")
        return self


class BackboneConfig(Record):
    """One CLIP model and how its pixels are normalised."""

    name: str = Field(min_length=1, description="open_clip's name, or the name of a configuration file")
    embed_dim: PositiveInt = Field(description="D, the joint embedding of both towers")
    quick_gelu: bool = Field(default=False, description="x sigmoid(1.702 x) instead of the exact GELU")
    vision: VisionConfig
    text: TextConfig
    mean: tuple[float, float, float] = Field(default=OPENAI_MEAN, description="per channel, of values in 0..1")
    std: tuple[Positive, Positive, Positive] = Field(default=OPENAI_STD, description="per channel, of values in 0..1")

    @classmethod
    def from_open_clip(cls, source: str | Path | Mapping[str, Any]) -> BackboneConfig:
        """Read an open_clip model name, a JSON file in open_clip's format (a bare model configuration, or one with
        `model_cfg` and `preprocess_cfg`), or such a configuration as a dict. Raises ConfigError."""
        fields = read_open_clip_config(source)
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            raise settings_error(f"the model configuration {fields['name']}", error) from error


class KindRecord(Record):
    """Settings of which `kind` says which apply. Others are refused when set and left out when written, so that
    a setting without effect can neither mislead nor change a fingerprint."""

    applies: ClassVar[Mapping[str, frozenset[str]]]
    kind: str

    @validates(mode="after")
    def _only_what_applies(self) -> Self:
        idle = sorted(self.model_fields_set - self.applies[self.kind] - {"kind"})
        if idle:
            raise ValueError(f"{', '.join(idle)} has no effect on kind '{self.kind}'; leave it out")
        return self

    @model_serializer(mode="wrap")
    def _write_what_applies(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        kept = self.applies[self.kind] | {"kind"}
        return {key: value for key, value in handler(self).items() if key in kept}


_SEQUENCE_SETTINGS = frozenset({"heads", "mlp_ratio", "position_init", "position_std", "init"})


class TemporalConfig(KindRecord):
    """How frame features become one video embedding."""

    applies: ClassVar[Mapping[str, frozenset[str]]] = {
        "mean": frozenset(),
        "transformer": _SEQUENCE_SETTINGS | {"layers"},
        "mstdt": _SEQUENCE_SETTINGS | {"scales", "short_layers", "long_layers", "alpha"},
    }

    kind: Literal["mean", "transformer", "mstdt"] = Field(
        default="mean", description="CLIP4Clip's meanP or seqTransf (arXiv 2104.08860), or MSTDT (arXiv 2406.16111)"
    )
    layers: PositiveInt = Field(default=4, description="blocks of seqTransf")
    heads: PositiveInt | None = Field(default=None, description="attention heads; None: one for 64 channels")
    mlp_ratio: Positive = Field(default=4.0, description="hidden channels of the MLP, over width (rounded down)")
    scales: tuple[Annotated[int, Field(ge=2)], ...] = Field(
        default=(3, 4, 6), min_length=1, description="frames k of a subset S_k, one short-term encoder each"
    )
    short_layers: PositiveInt = Field(default=1, description="blocks of each short-term encoder")
    long_layers: PositiveInt = Field(default=1, description="blocks of the long-term encoder")
    alpha: float = Field(default=0.5, ge=0, le=1, description="V = alpha s + (1 - alpha) l, short against long term")
    position_init: Literal["text", "normal"] = Field(
        default="text", description="position tables begin as CLIP's text positions, or at random"
    )
    position_std: Positive = Field(default=0.01, description="deviation of random position tables")
    init: Literal["text", "random"] = Field(
        default="text", description="blocks begin as the text tower's first blocks, or at random"
    )

    def heads_for(self, width: int) -> int:
        return self.heads or max(1, width // 64)

    @property
    def depth(self) -> int:
        """Blocks of the deepest stack."""
        return self.layers if self.kind == "transformer" else max(self.short_layers, self.long_layers)

    @validates(mode="after")
    def _scales_differ(self) -> Self:
        if len(set(self.scales)) < len(self.scales):
            raise ValueError(f"scales {self.scales} name one scale twice")
        return self


class AlignmentConfig(KindRecord):
    """How a text embedding crosses the gap to the videos: not at all, or by DITS (NeurIPS 2024, equation 8)."""

    applies: ClassVar[Mapping[str, frozenset[str]]] = {
        "none": frozenset(),
        "dits": frozenset({"steps", "beta_start", "beta_end", "start", "noise", "blocks", "heads", "mlp_ratio"}),
    }

    kind: Literal["none", "dits"] = Field(default="none", description="no alignment, or the truncated sampler")
    steps: int = Field(default=10, ge=1, le=100, description="T', steps of the sampler")
    beta_start: Beta = Field(default=0.1, description="beta_1 of the linear variance schedule")
    beta_end: Beta = Field(default=0.99, description="beta_T' of the schedule; with one step beta is beta_start")
    start: Literal["raw", "normalised"] = Field(
        default="raw", description="v_T' is the text projection as it is, or of length 1 (the paper is silent)"
    )
    noise: Literal["none"] = Field(default="none", description="lambda_k of equation 8: 0")
    blocks: PositiveInt = Field(default=4, description="N, DiT blocks of the alignment network")
    heads: PositiveInt = Field(default=16, description="attention heads; without effect on a sequence of one token")
    mlp_ratio: Positive = Field(default=4.0, description="hidden channels of the MLP, over width (rounded down)")


class ModelConfig(Record):
    """Both towers, and what they see."""

    backbone: BackboneConfig
    frames: FrameSpec
    text: TextSpec
    temporal: TemporalConfig = TemporalConfig()
    alignment: AlignmentConfig = AlignmentConfig()

    @classmethod
    def from_backbone(
        cls,
        backbone: BackboneConfig,
        *,
        frames: int = 12,
        temporal: TemporalConfig | None = None,
        alignment: AlignmentConfig | None = None,
    ) -> ModelConfig:
        """The configuration in which pixels and text are what the backbone was trained on. Raises ConfigError."""
        size, text = backbone.vision.image_size, backbone.text
        return parse_model_config(
            {
                "backbone": backbone,
                "frames": {"count": frames, "size": size, "mean": backbone.mean, "std": backbone.std},
                "text": {"context_length": text.context_length, "vocab_size": text.vocab_size},
                "temporal": temporal or TemporalConfig(),
                "alignment": alignment or AlignmentConfig(),
            }
        )

    @validates(mode="after")
    def _inputs_fit_the_backbone(self) -> Self:
        vision, text = self.backbone.vision, self.backbone.text
        for what, given, wanted in (
            ("frames.size", self.frames.size, vision.image_size),
            ("frames.mean", self.frames.mean, self.backbone.mean),
            ("frames.std", self.frames.std, self.backbone.std),
            ("text.context_length", self.text.context_length, text.context_length),
            ("text.vocab_size", self.text.vocab_size, text.vocab_size),
        ):
            if given != wanted:
                raise ValueError(f"{what} is {given}, but the backbone {self.backbone.name} needs {wanted}")
        ids = (self.text.start_id, self.text.end_id)
        if min(ids) < 0 or max(ids) >= text.vocab_size or ids[0] == ids[1]:
            raise ValueError(f"start_id and end_id {ids} must be two ids below the vocabulary's {text.vocab_size}")
        return self

    @validates(mode="after")
    def _heads_divide(self) -> Self:
        width = self.backbone.embed_dim
        if self.temporal.kind != "mean" and width % self.temporal.heads_for(width):
            raise ValueError(f"temporal.heads {self.temporal.heads_for(width)} does not divide embed_dim {width}")
        if self.alignment.kind != "none" and width % self.alignment.heads:
            raise ValueError(f"alignment.heads {self.alignment.heads} does not divide embed_dim {width}")
        return self

    @validates(mode="after")
    def _text_layers_can_be_copied(self) -> Self:
        temporal, text, width = self.temporal, self.backbone.text, self.backbone.embed_dim
        if temporal.kind == "mean":
            return self
        if temporal.position_init == "text":
            longest = max(self.frames.count, *(temporal.scales if temporal.kind == "mstdt" else ()), 1)
            if text.width != width or longest > text.context_length:
                raise ValueError(
                    f"temporal.position_init 'text' copies {text.context_length} positions of width {text.width}, but "
                    f"the head needs {longest} of width {width}; set temporal.position_init to 'normal'"
                )
        if temporal.init == "text":
            given = (text.width, text.heads, int(text.width * text.mlp_ratio))
            wanted = (width, temporal.heads_for(width), int(width * temporal.mlp_ratio))
            depth = (
                temporal.layers if temporal.kind == "transformer" else max(temporal.short_layers, temporal.long_layers)
            )
            if given != wanted or depth > text.layers:
                raise ValueError(
                    f"temporal.init 'text' copies from {text.layers} text blocks of (width, heads, MLP) {given}, "
                    f"but the head needs {depth} of {wanted}; set temporal.init to 'random'"
                )
        return self


def parse_model_config(given: Mapping[str, Any]) -> ModelConfig:
    """Check a configuration that comes from outside. Raises ConfigError, one sentence."""
    try:
        return ModelConfig.model_validate(given)
    except ValidationError as error:
        raise settings_error("the model configuration", error) from error


def settings_error(what: str, error: ValidationError) -> ConfigError:
    """Name the first setting that cannot be honoured, what was received, and why."""
    first = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    reason = first["msg"].removeprefix("Value error, ")
    received = "" if first["type"] in ("missing", "value_error") else f" (received {reprlib.repr(first['input'])})"
    return ConfigError(f"{what} cannot be used: {f'{place}: ' if place else ''}{reason}{received}")
