"""Hosts answer cases: each turns a stage's inputs into its outputs, or says that it has no such stage."""

from .base import Host
from .runtime import RuntimeHost

__all__ = ["Host", "RuntimeHost"]
