"""ONNX in fp32 -> strongly typed ONNX in fp16 or bf16, with islands of fp32."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.passes.common import LiftConstantsToInitializersPass, ShapeInferencePass

from vtr_runtime.errors import UsageError

from ..graph.module_names import MODULE, module_names, root_of
from .islands import Islands
from .types import FP32, MOVES, NOT_IN_OPSET, NodeType, choose_types

LowPrecision = Literal["fp16", "bf16"]
LOW_TYPES = {"fp16": ir.DataType.FLOAT16, "bf16": ir.DataType.BFLOAT16}
PRODUCTS = frozenset({"Attention", "Conv", "Gemm", "MatMul"})
REFUSED = {
    "LSTM": "engines have no typed recurrence that could be proved; export this model in fp32",
    "QuantizeLinear": "the graph is quantised already; lower the fp32 graph",
}
# A weight that nodes of both types read is stored in both up to here; a larger one in fp32, and cast where it is read.
SMALL_BYTES = 65_536


@dataclass
class LoweringReport:
    """What the lowering did."""

    precision: LowPrecision
    islands: dict[str, list[str]] = field(default_factory=dict)  # rule -> the modules that it kept in fp32
    products_low: int = 0  # MatMul, Gemm, Conv and Attention in the low type
    products_fp32: int = 0
    casts: int = 0  # added
    clamped: dict[str, int] = field(default_factory=dict)  # by tensor: numbers beyond the type's largest, now that one
    flushed: dict[str, int] = field(default_factory=dict)  # by tensor: numbers that were not zero, and are now

    def lines(self) -> list[str]:
        """What to say of it."""
        products = self.products_low + self.products_fp32
        said = [
            f"{self.precision}: {self.products_low} of {products} matrix products lowered, {self.casts} casts added"
        ]
        said += [
            f"in fp32 because {rule}: {', '.join(modules[:4])}"
            + (f" and {len(modules) - 4} more" if len(modules) > 4 else "")
            for rule, modules in self.islands.items()
            if rule.startswith(NOT_IN_OPSET)
        ]
        for counts, became in ((self.clamped, "the largest finite number"), (self.flushed, "zero")):
            if counts:
                worst = max(counts, key=lambda name: counts[name])
                said.append(f"{sum(counts.values())} constants became {became}, {counts[worst]} of them in {worst}")
        return said


def lower_precision(
    source: Path,
    target: Path,
    *,
    precision: LowPrecision,
    islands: Islands | None = None,
    external: bool = False,
    fp32_softmax: bool = True,
) -> LoweringReport:
    """Write `source` (fp32) as `target`, every float tensor outside the islands in the low type.

    Inputs and outputs keep their types. With `fp32_softmax` the operator Attention says that its softmax is to be
    computed in fp32, an attribute that TensorRT does not take.
    With `external` the weights go into `<target>.data`. `source` is named after
    its part of the model (video.onnx, text.onnx, rerank.onnx). Raises UsageError for what cannot be lowered."""
    model = ir.load(source)
    report = lower_model(
        model, precision=precision, islands=islands or Islands(), root=root_of(source), fp32_softmax=fp32_softmax
    )
    ir.save(model, target, external_data=f"{target.name}.data" if external else None)
    onnx.checker.check_model(str(target), full_check=True)
    return report


def lower_model(
    model: ir.Model, *, precision: LowPrecision, islands: Islands, root: str, fp32_softmax: bool = True
) -> LoweringReport:
    """Lower a model in place; `root` is its part of RetrievalModel: video, text or rerank."""
    graph = model.graph
    for node in graph:
        if node.op_type in REFUSED:
            raise UsageError(f"{node.op_type} cannot be lowered to {precision}: {REFUSED[node.op_type]}")
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    _drop_idle_casts(graph)
    if any(value.dtype is None for node in graph for value in node.outputs):
        ShapeInferencePass()(model)
    names = module_names(graph, root)
    types = choose_types(graph, names, islands, LOW_TYPES[precision])
    lowering = _Lowering(graph, types, names, LoweringReport(precision), fp32_softmax=fp32_softmax)
    lowering.run()
    return lowering.report


class _Lowering:
    """Rewrites a graph whose nodes' types are chosen; each value is cast at most once, each weight converted once."""

    def __init__(
        self,
        graph: ir.Graph,
        types: dict[ir.Node, NodeType],
        names: dict[ir.Node, str],
        report: LoweringReport,
        *,
        fp32_softmax: bool,
    ) -> None:
        self.fp32_softmax = fp32_softmax
        self.graph, self.types, self.names, self.report = graph, types, names, report
        self.low = LOW_TYPES[report.precision]
        self.given: dict[ir.Value, ir.DataType] = {}  # the type that each float value has now
        self.cast: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}

    def run(self) -> None:
        self.given |= {value: FP32 for value in self.graph.inputs if value.dtype == FP32}
        self._convert_weights()
        nodes = list(self.graph)
        for node in nodes:
            if node in self.types:
                self._retype(node)
        for index, value in enumerate(self.graph.outputs):
            if self.given.get(value, FP32) != FP32:
                self._restore_output(index, value)
        for node in self.graph:
            node.metadata_props.clear()
            node.metadata_props[MODULE] = self.names[node]
        self._count(nodes)

    def _retype(self, node: ir.Node) -> None:
        wanted = self.types[node].type
        for index, value in enumerate(node.inputs):
            if value is not None and self.given.get(value, wanted) != wanted:
                node.replace_input_with(index, self._as_type(value, wanted, node))
        for value in node.outputs:
            if value.dtype == FP32:
                value.dtype = self.given[value] = wanted
        if node.op_type == "Cast" and node.attributes["to"].as_int() == FP32:
            node.attributes["to"] = ir.AttrInt64("to", wanted)
        if node.op_type == "ConstantOfShape" and node.outputs[0].dtype != FP32 and node.outputs[0] in self.given:
            node.attributes["value"] = ir.AttrTensor("value", self._lowered(node.attributes["value"].as_tensor(), ""))
        if node.op_type == "Attention" and wanted != FP32 and self.fp32_softmax:
            node.attributes["softmax_precision"] = ir.AttrInt64("softmax_precision", FP32)

    def _as_type(self, value: ir.Value, wanted: ir.DataType, reader: ir.Node) -> ir.Value:
        if (value, wanted) not in self.cast:
            name = f"{value.name}_{'fp32' if wanted == FP32 else self.report.precision}"
            out = ir.Value(name=name, shape=value.shape, type=ir.TensorType(wanted))
            cast = ir.Node("", "Cast", [value], [ir.AttrInt64("to", wanted)], outputs=[out], name=f"cast_{name}")
            producer = value.producer()
            if producer is None:
                self.graph.insert_before(self.graph[0], cast)
            else:
                self.graph.insert_after(producer, cast)
            self.names[cast] = self.names[reader]
            self.cast[value, wanted] = out
            self.report.casts += 1
        return self.cast[value, wanted]

    def _restore_output(self, index: int, value: ir.Value) -> None:
        """An output keeps its name and type; what makes it gets another name."""
        producer = value.producer()
        assert producer is not None  # a graph's input keeps its type
        name, value.name = value.name, f"{value.name}_{self.report.precision}"
        out = self._as_type(value, FP32, producer)
        out.name = name
        self.graph.outputs[index] = out

    def _convert_weights(self) -> None:
        for value in list(self.graph.initializers.values()):
            if value.dtype != FP32 or value.const_value is None:
                continue
            readers = {use.node for use in value.uses()}
            wanted = {self.types[node].type for node in readers}
            self.given[value] = FP32
            if self.low not in wanted or value.is_graph_output():
                continue
            small = value.const_value.nbytes <= SMALL_BYTES
            if FP32 in wanted and not small:
                continue
            if FP32 in wanted:
                self._keep_copy(value)
            name = value.name or ""
            value.const_value = self._lowered(value.const_value, name)
            value.dtype = self.given[value] = self.low

    def _keep_copy(self, value: ir.Value) -> None:
        """Beside a weight that is about to be lowered, the same in fp32 for the nodes that want it so."""
        copy = ir.Value(
            name=f"{value.name}_fp32", shape=value.shape, type=ir.TensorType(FP32), const_value=value.const_value
        )
        self.graph.register_initializer(copy)
        self.given[copy] = FP32
        self.cast[value, FP32] = copy

    def _lowered(self, tensor: ir.TensorProtocol, name: str) -> ir.TensorProtocol:
        numbers = np.asarray(tensor.numpy(), dtype=np.float32)
        if np.isnan(numbers).any():
            raise UsageError(f"{name or 'a constant'} holds NaN; export a checkpoint whose weights are finite")
        largest = float(ml_dtypes.finfo(self.low.numpy()).max)  # type: ignore[no-untyped-call]
        # Rounding may reach beyond the largest number too, so the comparison is made after it.
        with np.errstate(over="ignore"):
            rounded = numbers.astype(self.low.numpy())
        if beyond := int(np.count_nonzero(~np.isfinite(rounded))):
            self.report.clamped[name] = beyond
            rounded = np.clip(numbers, -largest, largest).astype(self.low.numpy())
        if flushed := int(np.count_nonzero((rounded == 0) & (numbers != 0))):
            self.report.flushed[name] = flushed
        return ir.Tensor(rounded, dtype=self.low, name=tensor.name)

    def _count(self, nodes: list[ir.Node]) -> None:
        kept: dict[str, set[str]] = defaultdict(set)
        for node in nodes:
            chosen = self.types.get(node)
            if chosen is None:
                continue
            if chosen.reason is not None and node.op_type not in MOVES:
                kept[chosen.reason].add(self.names[node])
            if node.op_type in PRODUCTS:
                self.report.products_low += chosen.type == self.low
                self.report.products_fp32 += chosen.type == FP32
        self.report.islands = {rule: sorted(modules) for rule, modules in kept.items()}


def _drop_idle_casts(graph: ir.Graph) -> None:
    """A cast from fp32 to fp32, left by the tracer, would stand between an island and its reader."""
    for node in list(graph):
        [value, *_] = node.inputs or [None]
        idle = node.op_type == "Cast" and value is not None and value.dtype == FP32 == node.attributes["to"].as_int()
        if idle and value is not None and not node.outputs[0].is_graph_output():
            node.outputs[0].replace_all_uses_with(value)
            graph.remove(node, safe=True)
