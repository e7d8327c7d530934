"""Both towers, the second stage, and what they see."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from pydantic import ValidationError
from pydantic import model_validator as validates

from vtr_runtime.manifest import FrameSpec, Record, TextSpec
from vtr_runtime.sampling import Sampling

from .alignment import AlignmentConfig
from .backbone import BackboneConfig
from .records import settings_error
from .rerank import RerankConfig
from .temporal import TemporalConfig


class ModelConfig(Record):
    """Both towers, and what they see."""

    backbone: BackboneConfig
    frames: FrameSpec
    text: TextSpec
    temporal: TemporalConfig = TemporalConfig()
    alignment: AlignmentConfig = AlignmentConfig()
    rerank: RerankConfig = RerankConfig()

    @classmethod
    def from_backbone(
        cls,
        backbone: BackboneConfig,
        *,
        frames: int = 12,
        sampling: Sampling = "uniform",
        temporal: TemporalConfig | None = None,
        alignment: AlignmentConfig | None = None,
        rerank: RerankConfig | None = None,
    ) -> ModelConfig:
        """The configuration in which pixels and text are what the backbone was trained on. Raises ConfigError."""
        size, text = backbone.vision.image_size, backbone.text
        spec = {"count": frames, "size": size, "sampling": sampling, "mean": backbone.mean, "std": backbone.std}
        return parse_model_config(
            {
                "backbone": backbone,
                "frames": spec,
                "text": {"context_length": text.context_length, "vocab_size": text.vocab_size},
                "temporal": temporal or TemporalConfig(),
                "alignment": alignment or AlignmentConfig(),
                "rerank": rerank or RerankConfig(),
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
        width, temporal, alignment = self.backbone.embed_dim, self.temporal, self.alignment
        if "heads" in temporal.applies[temporal.kind] and width % temporal.heads_for(width):
            raise ValueError(f"temporal.heads {temporal.heads_for(width)} does not divide embed_dim {width}")
        if "heads" in alignment.applies[alignment.kind] and width % alignment.heads:
            raise ValueError(f"alignment.heads {alignment.heads} does not divide embed_dim {width}")
        return self

    @validates(mode="after")
    def _subsets_fit_the_frames(self) -> Self:
        temporal, count = self.temporal, self.frames.count
        if temporal.kind == "mstdt" and temporal.tail == "drop" and max(temporal.scales) > count:
            raise ValueError(
                f"temporal.tail 'drop' leaves none of {count} frames at scale {max(temporal.scales)}; set it to 'pad'"
            )
        return self

    @validates(mode="after")
    def _text_layers_can_be_copied(self) -> Self:
        temporal, text, width = self.temporal, self.backbone.text, self.backbone.embed_dim
        if "init" not in temporal.applies[temporal.kind]:
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
            if given != wanted or temporal.depth > text.layers:
                raise ValueError(
                    f"temporal.init 'text' copies from {text.layers} text blocks of (width, heads, MLP) {given}, "
                    f"but the head needs {temporal.depth} of {wanted}; set temporal.init to 'random'"
                )
        return self


def parse_model_config(given: Mapping[str, Any]) -> ModelConfig:
    """Check a configuration that comes from outside. Raises ConfigError, one sentence."""
    try:
        return ModelConfig.model_validate(given)
    except ValidationError as error:
        raise settings_error("the model configuration", error) from error
