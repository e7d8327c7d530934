"""Embed videos and sentences from a vtr-export bundle, and search them. Never imports torch.

>>> import vtr_runtime
>>> model = vtr_runtime.load("bundle/")
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .clips import Clip, EmbeddedClip
    from .errors import VtrError
    from .model import Model, load
    from .sampling import Windows

__version__ = "0.1.0"
__all__ = ["Clip", "EmbeddedClip", "Model", "VtrError", "Windows", "load"]

# Resolved on first use, so that `--help` and the trainer do not pay for an inference engine.
_HOME = {
    "Clip": ".clips",
    "EmbeddedClip": ".clips",
    "Model": ".model",
    "VtrError": ".errors",
    "Windows": ".sampling",
    "load": ".model",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'vtr_runtime' has no attribute '{name}'")
    return getattr(import_module(_HOME[name], __name__), name)
