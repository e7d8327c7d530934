"""Inference engines behind one small interface: arrays in, arrays out."""

from .base import Backend, PrecisionError
from .choose import BACKENDS, open_backend

__all__ = ["BACKENDS", "Backend", "PrecisionError", "open_backend"]
