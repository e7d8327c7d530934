"""The CLIP model below the heads.

Only CLIP's own architectures are built here (Radford et al. 2021, "Learning transferable visual models from natural
language supervision"): a plain vision transformer or a ModifiedResNet beside a causal text transformer with CLIP's BPE.
Every other open_clip configuration is refused by name and reason."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import Field, PositiveInt, ValidationError
from pydantic import model_validator as validates

from vtr_runtime.manifest import OPENAI_MEAN, OPENAI_STD, Record

from ..open_clip_format import read_open_clip_config
from .records import Positive, settings_error


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
