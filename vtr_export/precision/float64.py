"""A typed ONNX graph with every float in float64: what it would give if nothing were rounded on the way.

Weights are those of the graph, rounded as they are stored. Activations are not quantised: a QuantizeLinear and the
DequantizeLinear behind it hand on what they are given."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir
import torch
from torch import Tensor

from .execute import TypedGraph
from .operators import TORCH_TYPES, Call

QUANTISES = ("QuantizeLinear", "DequantizeLinear")


class Float64Graph(TypedGraph):
    """As TypedGraph; outputs that are floats are float64."""

    def _run(self, node: ir.Node, values: Mapping[ir.Value, Tensor]) -> tuple[Tensor, ...]:
        attributes = self._attributes[node]
        if node.op_type == "Constant":
            return (_double(attributes["value"].to(self.device)),)
        # Weights are widened at each reading: all of them in float64 would double the memory.
        inputs = [None if value is None else _double(values[value]) for value in node.inputs]
        first = inputs[0] if inputs else None
        if first is not None and node.op_type == "Cast":
            kind = TORCH_TYPES[attributes["to"]]
            return (first.to(torch.float64 if kind.is_floating_point else kind),)
        if first is not None and node.op_type in QUANTISES and first.is_floating_point():
            return (first,)
        return tuple(map(_double, self._compute(node, Call(inputs, attributes, len(node.outputs), None))))


def _double(x: Tensor) -> Tensor:
    return x.double() if x.is_floating_point() else x
