"""What a recipe's model will be, without building it."""

from __future__ import annotations

from vtr_export.model.config import BackboneConfig, ModelConfig

from .recipe import ModelSettings


def model_config(settings: ModelSettings) -> ModelConfig:
    """ConfigError for a backbone that cannot be had, and for heads that do not fit it."""
    return ModelConfig.from_backbone(
        BackboneConfig.from_open_clip(settings.backbone),
        frames=settings.frames,
        sampling=settings.sampling,
        temporal=settings.temporal,
        alignment=settings.alignment,
        rerank=settings.rerank,
    )
