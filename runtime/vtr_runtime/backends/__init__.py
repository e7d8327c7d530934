"""Inference engines behind one small interface: arrays in, arrays out."""

from .base import Backend
from .choose import BACKENDS, open_backend

__all__ = ["BACKENDS", "Backend", "open_backend"]
