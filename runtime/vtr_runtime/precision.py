"""The names of the precisions that a bundle can be run in."""

from __future__ import annotations

from typing import Literal

Precision = Literal["fp32", "fp16", "bf16", "int8"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "bf16", "int8")
# Most that 1 - cosine to the fp32 embeddings may be. fp16 has 11 bits of mantissa and bf16 has 8; what a tower of
# twelve blocks makes of one rounding an operation lies a factor of ten and more below (docs/precision.md). int8 has no
# such limit: what counts there is whether the same videos are found.
COSINE_LOSS: dict[Precision, float] = {"fp16": 1e-4, "bf16": 1e-3}


def precision_of_graph(graph: str, precision: Precision) -> Precision:
    """A bundle's precision is that of its towers. The second stage is a few products and a choice of best frames, which
    is discontinuous: it runs in fp32 in every bundle. The temporal head alone is too small to gain from int8."""
    return "fp32" if graph == "rerank" or (graph == "temporal" and precision == "int8") else precision
