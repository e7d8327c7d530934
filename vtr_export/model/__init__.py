"""The model: configuration, both towers, checkpoints."""

from .checkpoint import Checkpoint, load_checkpoint, save_checkpoint, weights_sha256
from .config import (
    AlignmentConfig,
    BackboneConfig,
    ModelConfig,
    TemporalConfig,
    TextConfig,
    VisionConfig,
    parse_model_config,
)
from .open_clip_format import supported_open_clip_names
from .redraw import redraw_zero_parameters
from .retrieval import RetrievalModel
from .stock import from_open_clip
from .text_tower import TextTower
from .video_tower import VideoTower

__all__ = [
    "AlignmentConfig",
    "BackboneConfig",
    "Checkpoint",
    "ModelConfig",
    "RetrievalModel",
    "TemporalConfig",
    "TextConfig",
    "TextTower",
    "VideoTower",
    "VisionConfig",
    "from_open_clip",
    "load_checkpoint",
    "parse_model_config",
    "redraw_zero_parameters",
    "save_checkpoint",
    "supported_open_clip_names",
    "weights_sha256",
]
