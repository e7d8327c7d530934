"""A bundle as a model repository of the Triton inference server."""

from .repository import write_repository

__all__ = ["write_repository"]
