"""How much memory a TensorRT build will need, before it starts.

The builder holds the file, the parsed weights, the optimised weights and the plan at once on the host, and weights,
activations and workspace on the GPU. An estimate, not a limit; what was measured stands in docs/tensorrt.md."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from ..bundle import Bundle
from .device import DeviceInfo
from .profiles import Profile, input_shapes

COPIES_ON_HOST = 5
COPIES_ON_DEVICE = 2
# The library itself, its kernels and CUDA's context.
LIBRARY_BYTES = 1 << 30
# A block's widest moment (query, key, value, four times the width in the MLP, the residual) in sizes of its input.
ACTIVATION_FACTOR = 16
MEMINFO = Path("/proc/meminfo")
# How builders say that memory ran out. The last is TensorRT's usual word for it, and may mean another thing.
SIGNS = ("out of memory", "outofmemory", "memoryallocation", "bad_alloc", "requested amount of gpu memory",
         "insufficient memory", "could not find any implementation")  # fmt: skip


@dataclass(frozen=True)
class MemoryNeed:
    """Bytes that a build takes at its widest moment."""

    host: int
    device: int


def predict_memory(
    bundle: Bundle, profiles: dict[str, tuple[Profile, ...]], workspace: int | None = None
) -> MemoryNeed:
    """The need of the largest graph: graphs are built one after the other. `workspace` is its limit in bytes."""
    host = device = 0
    for name, graph in bundle.manifest.graphs.named().items():
        files = [graph.file, *([graph.external_data] if graph.external_data else [])]
        weights = sum(bundle.manifest.files[file].size for file in files)
        elements = 0
        for profile in profiles[name]:
            largest = {key: shapes[2] for key, shapes in input_shapes(graph, profile).items()}
            # A token stands for a vector of the model's width, of which D is the measure at hand.
            width = {"input_ids": bundle.manifest.dim}
            sizes = [math.prod(shape) * width.get(key, 1) for key, shape in largest.items()]
            elements = max(elements, sum(sizes))
        host = max(host, COPIES_ON_HOST * weights + LIBRARY_BYTES)
        activations = ACTIVATION_FACTOR * elements * 4
        device = max(device, COPIES_ON_DEVICE * weights + activations + (workspace or 0) + LIBRARY_BYTES)
    return MemoryNeed(host, device)


def host_memory_free() -> int | None:
    """Bytes that a new process may take without swapping, where the system tells."""
    try:
        lines = MEMINFO.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def memory_shortage(need: MemoryNeed, device: DeviceInfo | None, host_free: int | None) -> str | None:
    """One sentence where the prediction exceeds what is free, else None. A Jetson has one memory for both."""
    if device is not None and device.integrated:
        checks = [("the shared memory", need.host + need.device, host_free)]
    else:
        gpu_free = device.memory_free if device is not None else None
        checks = [("host memory", need.host, host_free), ("GPU memory", need.device, gpu_free)]
    for what, wanted, free in checks:
        if free is not None and wanted > free:
            return (
                f"{what} is short: the build is predicted to take {gib(wanted)}, and {gib(free)} are free; "
                "close other programs, or narrow it: --batch 1:4:8, --workspace 512M"
            )
    return None


def means_out_of_memory(errors: list[str]) -> bool:
    return any(sign in error.lower() for error in errors for sign in SIGNS)


def gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
