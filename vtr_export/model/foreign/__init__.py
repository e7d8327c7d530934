"""Checkpoints that vtr-train did not write: recognised by their tensors' names and shapes alone, or refused."""

from .opening import is_own_checkpoint, open_any_checkpoint

__all__ = ["is_own_checkpoint", "open_any_checkpoint"]
