"""The model: configuration, both towers, checkpoints. Names load on first use, so that reading a configuration needs no
PyTorch."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .checkpoint import Checkpoint as Checkpoint
    from .checkpoint import load_checkpoint as load_checkpoint
    from .checkpoint import save_checkpoint as save_checkpoint
    from .checkpoint import weights_sha256 as weights_sha256
    from .config import AlignmentConfig as AlignmentConfig
    from .config import BackboneConfig as BackboneConfig
    from .config import ModelConfig as ModelConfig
    from .config import RerankConfig as RerankConfig
    from .config import TemporalConfig as TemporalConfig
    from .config import TextConfig as TextConfig
    from .config import VisionConfig as VisionConfig
    from .config import parse_model_config as parse_model_config
    from .open_clip_format import supported_open_clip_names as supported_open_clip_names
    from .redraw import redraw_zero_parameters as redraw_zero_parameters
    from .retrieval import RetrievalModel as RetrievalModel
    from .stock import from_open_clip as from_open_clip
    from .text_tower import TextTower as TextTower
    from .video_tower import VideoTower as VideoTower

_HOMES = {
    "AlignmentConfig": "config",
    "BackboneConfig": "config",
    "Checkpoint": "checkpoint",
    "ModelConfig": "config",
    "RerankConfig": "config",
    "RetrievalModel": "retrieval",
    "TemporalConfig": "config",
    "TextConfig": "config",
    "TextTower": "text_tower",
    "VideoTower": "video_tower",
    "VisionConfig": "config",
    "from_open_clip": "stock",
    "load_checkpoint": "checkpoint",
    "parse_model_config": "config",
    "redraw_zero_parameters": "redraw",
    "save_checkpoint": "checkpoint",
    "supported_open_clip_names": "open_clip_format",
    "weights_sha256": "checkpoint",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
