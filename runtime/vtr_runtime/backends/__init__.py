"""Inference engines behind one small interface: arrays in, arrays out."""

from .base import Backend, BackendOptions, DeviceBackend, DeviceTensor, PrecisionError
from .choose import BACKENDS, Choice, choose_here, open_backend

__all__ = [
    "BACKENDS",
    "Backend",
    "BackendOptions",
    "Choice",
    "DeviceBackend",
    "DeviceTensor",
    "PrecisionError",
    "choose_here",
    "open_backend",
]
