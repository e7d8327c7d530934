"""What a model is made of, as frozen types that check themselves. Nothing here imports PyTorch."""

from .alignment import AlignmentConfig
from .backbone import BackboneConfig, TextConfig, VisionConfig
from .model import ModelConfig, parse_model_config
from .rerank import RerankConfig
from .temporal import TemporalConfig

__all__ = [
    "AlignmentConfig",
    "BackboneConfig",
    "ModelConfig",
    "RerankConfig",
    "TemporalConfig",
    "TextConfig",
    "VisionConfig",
    "parse_model_config",
]
