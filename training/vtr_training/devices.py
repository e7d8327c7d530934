"""Where a run computes, and what it takes there."""

from __future__ import annotations

import resource

import torch

from vtr_runtime.errors import ConfigError


def choose_device(name: str) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device is cuda and torch sees none; set device to cpu, or to auto")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def peak_memory(device: torch.device) -> int:
    """Most bytes held so far: of the GPU, or by this process in main memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu, {torch.get_num_threads()} threads"
