"""A typed ONNX graph, run node by node in PyTorch in exactly the types that it declares.

Products of 16-bit numbers are summed in fp32 and rounded once, as tensor cores do; every other operator computes on
fp32 copies and rounds its result to the declared type. So it proves a precision where no engine at hand computes in it:
ONNX Runtime's CPU provider has no bf16 kernels and widens fp16."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from torch import Tensor

from vtr_runtime.errors import BackendError, UsageError

from .operators import OPERATORS, TORCH_TYPES, Call

HALVES = (torch.float16, torch.bfloat16)
# Their floats may be of several types: an exponent, a scale beside what it scales.
MIXED = frozenset({"DequantizeLinear", "Pow", "QuantizeLinear"})


class TypedGraph:
    """Feeds of NumPy arrays by input name -> outputs by name. Raises BackendError for a graph that it cannot run."""

    def __init__(self, source: Path | ir.Model, device: str = "cpu") -> None:
        model = source if isinstance(source, ir.Model) else ir.load(source)
        self.name = source.name if isinstance(source, Path) else model.graph.name or "graph"
        self.device = torch.device(device)
        self.graph = model.graph
        self.input_names = tuple(value.name or "" for value in self.graph.inputs)
        self.output_names = tuple(value.name or "" for value in self.graph.outputs)
        self._nodes = list(self.graph)
        unknown = sorted({node.op_type for node in self._nodes} - {*OPERATORS, "Cast", "Constant"})
        if unknown:
            raise BackendError(
                f"{self.name} has operators that the typed executor does not know: {', '.join(unknown)}; "
                f"judge this graph in fp32, or add them to vtr_export/precision/operators.py"
            )
        self._weights = {
            value: tensor_of(value.const_value).to(self.device)
            for value in self.graph.initializers.values()
            if value.const_value is not None
        }
        self._wide: dict[ir.Value, Tensor] = {}  # weights of 16 bits: widened once, not at each reading
        self._attributes = {node: {name: _attribute(a) for name, a in node.attributes.items()} for node in self._nodes}
        self._last_reader = {value: node for node in self._nodes for value in node.inputs if value is not None}

    def __call__(self, feed: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        given = self._read_feed(feed)
        found = {**self._weights, **given}
        outputs = set(self.graph.outputs)
        for node, results in self._steps(given):
            found |= {value: x for value, x in zip(node.outputs, results, strict=False) if value in outputs}
        return {value.name or "": found[value].cpu().numpy() for value in self.graph.outputs}

    def steps(self, feed: Mapping[str, NDArray[Any]]) -> Iterator[tuple[ir.Node, tuple[Tensor, ...]]]:
        """Run node by node, in order: each with its outputs. What no later node reads is let go at once."""
        return self._steps(self._read_feed(feed))

    @torch.inference_mode()
    def _steps(self, given: Mapping[ir.Value, Tensor]) -> Iterator[tuple[ir.Node, tuple[Tensor, ...]]]:
        values = {**self._weights, **given}
        for node in self._nodes:
            results = self._run(node, values)
            values |= {value: x for value, x in zip(node.outputs, results, strict=False) if value in self._last_reader}
            for read in {value for value in node.inputs if value is not None}:
                if self._last_reader[read] is node and read not in self._weights:
                    values.pop(read, None)
            yield node, results

    def _read_feed(self, feed: Mapping[str, NDArray[Any]]) -> dict[ir.Value, Tensor]:
        if set(feed) != set(self.input_names):
            raise UsageError(f"{self.name} takes {', '.join(self.input_names)}, not {', '.join(sorted(feed))}")
        given = {}
        for value in self.graph.inputs:
            array = np.ascontiguousarray(feed[value.name or ""])
            assert value.dtype is not None
            if array.dtype != value.dtype.numpy():
                raise UsageError(f"{value.name} is {array.dtype}, but {self.name} takes {value.dtype.numpy()}")
            given[value] = torch.from_numpy(array).to(self.device)
        return given

    def _run(self, node: ir.Node, values: Mapping[ir.Value, Tensor]) -> tuple[Tensor, ...]:
        attributes = self._attributes[node]
        if node.op_type == "Constant":
            return (attributes["value"].to(self.device),)
        inputs = [None if value is None else values[value] for value in node.inputs]
        if node.op_type == "Cast":
            assert inputs[0] is not None
            return (inputs[0].to(TORCH_TYPES[attributes["to"]]),)
        low = self._float_type(node, inputs)
        wide = [self._widened(value, x) for value, x in zip(node.inputs, inputs, strict=True)]
        results = self._compute(node, Call(wide, attributes, len(node.outputs), low))
        return tuple(x.to(low) if low is not None and x.dtype == torch.float32 else x for x in results)

    def _compute(self, node: ir.Node, call: Call) -> tuple[Tensor, ...]:
        try:
            result = OPERATORS[node.op_type](call)
        except (NotImplementedError, IndexError, RuntimeError) as error:
            raise BackendError(f"{self.name}: {node.op_type} {node.name!r} cannot be run: {error}") from error
        return result if isinstance(result, tuple) else (result,)

    def _widened(self, value: ir.Value | None, x: Tensor | None) -> Tensor | None:
        if x is None or value is None or x.dtype not in HALVES:
            return x
        if value not in self._weights:
            return x.float()
        if value not in self._wide:
            self._wide[value] = x.float()
        return self._wide[value]

    def _float_type(self, node: ir.Node, inputs: list[Tensor | None]) -> torch.dtype | None:
        """The 16-bit type of a node's floats, None where they are fp32 or there are none."""
        found = {x.dtype for x in inputs if x is not None and x.is_floating_point()}
        if len(found) > 1 and node.op_type not in MIXED:
            raise BackendError(f"{self.name}: {node.op_type} {node.name!r} mixes {', '.join(sorted(map(str, found)))}")
        if node.op_type in MIXED:
            # The base of a power and the scale of a quantisation give the type of the result.
            decides = inputs[1 if node.op_type == "DequantizeLinear" else 0]
            found = {decides.dtype} if decides is not None else found
        return next((kind for kind in found if kind in HALVES), None)


def tensor_of(tensor: ir.TensorProtocol) -> Tensor:
    """An ONNX tensor as PyTorch's, bit by bit."""
    array = tensor.numpy()
    if tensor.dtype == ir.DataType.BFLOAT16:
        return torch.from_numpy(np.array(array).view(np.uint16)).view(torch.bfloat16)
    return torch.from_numpy(np.array(array))  # a copy: what is mapped from a file may not be written to


def _attribute(attribute: ir.Attr) -> Any:
    if attribute.type == ir.AttributeType.TENSOR:
        return tensor_of(attribute.as_tensor())
    return list(attribute.value) if isinstance(attribute.value, tuple) else attribute.value
