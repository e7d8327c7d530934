"""Checkpoints that vtr-train did not write: recognised by their tensors' names and shapes alone, or refused."""

from .opening import open_any_checkpoint, read_own_checkpoint

__all__ = ["open_any_checkpoint", "read_own_checkpoint"]
