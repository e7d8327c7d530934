"""The machine under the figures: its name, its libraries, what its matrix product reaches, what a model costs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import vtr_runtime.machine

SIDE = 4096  # of the square matrices whose product is timed; their fp32 product is 137 GFLOP
LIBRARIES = ("torch", "open_clip_torch", "onnxruntime", "openvino", "nncf", "onnx", "onnxscript", "numpy", "usearch")


def describe_machine(threads: int) -> dict[str, Any]:
    """What a reader needs to compare these figures with others."""
    return vtr_runtime.machine.describe_machine(threads, LIBRARIES)


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
