"""The machine under the figures: its name, its libraries, what its matrix product reaches, what a model costs."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

SIDE = 4096  # of the square matrices whose product is timed; their fp32 product is 137 GFLOP
LIBRARIES = ("torch", "open_clip_torch", "onnxruntime", "openvino", "nncf", "onnx", "onnxscript", "numpy", "usearch")
INSTRUCTIONS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")


def describe_machine(threads: int) -> dict[str, Any]:
    """What a reader needs to compare these figures with others."""
    cpu = _cpu_info()
    return {
        "cpu": cpu.get("model name", platform.processor() or platform.machine()),
        "instructions": [name for name in INSTRUCTIONS if name in cpu.get("flags", "").split()],
        "cores": os.cpu_count(),
        "threads": threads,
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "libraries": {name: _version(name) for name in LIBRARIES},
        "load_before": round(os.getloadavg()[0], 2),
    }


def image_tower_flops(model: str) -> int:
    """Floating point operations of open_clip's ViT for one picture, a multiplication and an addition being two.

    Products only: 2 [P 3p^2 d + L (12 N d^2 + 2 N^2 d) + d D] with P patches of p x p, N = P + 1 tokens, width d,
    L layers, embedding D; 4 d^2 of the 12 d^2 are the attention's projections, 8 d^2 the MLP."""
    import open_clip

    config = open_clip.get_model_config(model)
    vision = config["vision_cfg"]
    patch, width, layers = vision["patch_size"], vision["width"], vision["layers"]
    patches = (vision["image_size"] // patch) ** 2
    tokens = patches + 1
    blocks = layers * (12 * tokens * width**2 + 2 * tokens**2 * width)
    return 2 * int(patches * 3 * patch**2 * width + blocks + width * config["embed_dim"])


def prepare_products() -> dict[str, Callable[[], Any]]:
    """Products of two square matrices in fp32 and bf16, by torch.mm (oneDNN)."""
    import torch

    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(SIDE, SIDE, generator=generator) for _ in range(2))
    low = left.bfloat16(), right.bfloat16()
    return {"fp32": lambda: torch.mm(left, right), "bf16": lambda: torch.mm(*low)}


def product_rate(seconds: float) -> float:
    """Operations per second."""
    return 2.0 * SIDE**3 / seconds


def _cpu_info() -> dict[str, str]:
    path = Path("/proc/cpuinfo")
    if not path.is_file():
        return {}
    first = path.read_text(encoding="utf-8", errors="replace").split("\n\n")[0]
    pairs = (line.split(":", 1) for line in first.splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
