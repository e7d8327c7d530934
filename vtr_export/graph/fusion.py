"""Does a graph hold the operators that engines fuse? What a tower calls in PyTorch is counted against what is found.

An attention whose pattern is broken, a LayerNorm in nine pieces or an activation of another kind still give the right
numbers, slowly, or wrong ones in half precision; engines say nothing of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx
import torch
from onnx import NodeProto, numpy_helper
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from vtr_runtime.errors import GateError

from ..model.attention import QuickGELU
from .modules import RerankGraph

QUICK_GELU_FACTOR = 1.702
KINDS = ("attention", "layer_norm", "gelu", "quick_gelu")


@dataclass(frozen=True)
class Fusion:
    """By kind of operator: how many the model calls, and how many stand in a graph or engine in one piece."""

    where: str
    expected: dict[str, int]
    found: dict[str, int]

    @property
    def summary(self) -> str:
        return ", ".join(f"{kind} {self.found.get(kind, 0)}/{count}" for kind, count in self.expected.items() if count)

    def check(self) -> None:
        """GateError where fewer are found than the model calls."""
        for kind, count in self.expected.items():
            if self.found.get(kind, 0) < count:
                raise GateError(
                    f"{self.where} holds {self.found.get(kind, 0)} of {count} {kind} in one piece: "
                    "the pattern is broken, or another operator took its place"
                )


class _Calls(TorchFunctionMode):
    """Counts what is called by Python, below modules and functions alike."""

    _NAMES: ClassVar[dict[Callable[..., Any], str]] = {
        F.layer_norm: "layer_norm",
        F.scaled_dot_product_attention: "attention",
        F.gelu: "gelu",
    }

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter(dict.fromkeys(KINDS, 0))

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in self._NAMES:
            self.counts[self._NAMES[func]] += 1
        return func(*args, **(kwargs or {}))


def expected_operators(module: nn.Module, *inputs: Tensor) -> dict[str, int]:
    """Run the trained module once, and count its attentions, LayerNorms and activations."""
    calls = _Calls()
    quick: list[None] = []
    hooks = [
        part.register_forward_hook(lambda *_: quick.append(None))
        for part in module.modules()
        if isinstance(part, QuickGELU)
    ]
    try:
        with torch.inference_mode(), calls:
            module(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
    counts = dict(calls.counts) | {"quick_gelu": len(quick)}
    if isinstance(module, RerankGraph):
        counts["attention"] = 0  # X-Pool has one softmax over frames, which no engine fuses
    return counts


def find_operators(path: Path) -> dict[str, int]:
    """Count the same in an ONNX file, Casts within a pattern aside."""
    graph = onnx.load(path, load_external_data=False).graph
    made_by = {name: node for node in graph.node for name in node.output}
    constants = {tensor.name: tensor for tensor in graph.initializer if not tensor.external_data}
    kinds = Counter(node.op_type for node in graph.node)
    softmax = [node for node in graph.node if node.op_type == "Softmax"]
    sigmoid = [node for node in graph.node if node.op_type == "Sigmoid"]
    return {
        "attention": kinds["Attention"] + sum(_scores_are_a_product(node, made_by) for node in softmax),
        "layer_norm": kinds["LayerNormalization"],
        # Below opset 20: x (1 + erf(x / sqrt 2)) / 2, and the approximation by tanh.
        "gelu": kinds["Gelu"] + kinds["Erf"] + kinds["Tanh"],
        "quick_gelu": sum(_is_quick_gelu(node, made_by, constants) for node in sigmoid),
    }


def find_in_openvino(where: str, layers: dict[str, int], expected: dict[str, int]) -> Fusion:
    """What OpenVINO's compiled graph says of itself: attention is one layer or one snippet, a LayerNorm is an `MVN`.
    Activations leave no trace where they are fused into the product before them."""
    found = {
        "attention": layers.get("Subgraph", 0) + layers.get("ScaledDotProductAttention", 0),
        "layer_norm": layers.get("MVN", 0),
    }
    return Fusion(where, {kind: expected[kind] for kind in found}, found)


def _before_cast(name: str, made_by: dict[str, NodeProto]) -> NodeProto | None:
    node = made_by.get(name)
    while node is not None and node.op_type == "Cast":
        node = made_by.get(node.input[0])
    return node


def _scores_are_a_product(softmax: NodeProto, made_by: dict[str, NodeProto]) -> bool:
    """MatMul, and perhaps a mask that is added."""
    node = _before_cast(softmax.input[0], made_by)
    if node is not None and node.op_type == "Add":
        node = next((n for name in node.input if (n := _before_cast(name, made_by)) and n.op_type == "MatMul"), None)
    return node is not None and node.op_type == "MatMul"


def _is_quick_gelu(sigmoid: NodeProto, made_by: dict[str, NodeProto], constants: dict[str, onnx.TensorProto]) -> bool:
    node = _before_cast(sigmoid.input[0], made_by)
    if node is None or node.op_type != "Mul":
        return False
    factors = [_scalar(name, made_by, constants) for name in node.input]
    return any(factor is not None and abs(factor - QUICK_GELU_FACTOR) < 0.01 for factor in factors)


def _scalar(name: str, made_by: dict[str, NodeProto], constants: dict[str, onnx.TensorProto]) -> float | None:
    tensor = constants.get(name)
    node = made_by.get(name)
    if tensor is None and node is not None and node.op_type == "Constant":
        tensor = next((item.t for item in node.attribute if item.name == "value"), None)
    if tensor is None and node is not None and node.op_type == "Cast":
        return _scalar(node.input[0], made_by, constants)
    if tensor is None:
        return None
    value = numpy_helper.to_array(tensor)
    return float(np.asarray(value, np.float64)) if value.ndim == 0 else None
