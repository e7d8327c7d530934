"""ONNX in fp32 -> ONNX with static int8 Q/DQ, by NNCF, calibrated on real inputs.

Weights are symmetric int8 per output channel, activations symmetric int8 per tensor with zero points of 0, which every
engine takes and TensorRT alone takes. Only matrix products with a weight are quantised: those of attention stay in the
float type, where engines fuse them."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx import numpy_helper

from vtr_runtime.errors import UsageError

from ..graph.module_names import module_names, root_of
from .islands import Islands

Feed = Mapping[str, NDArray[Any]]
# The extremes of activations settle over a few dozen inputs; fewer leave outliers that were not seen.
MIN_SAMPLES = 32
INT8_ISLANDS = Islands(
    (
        # The first layer: of the 256 values of a pixel symmetric int8 would leave 128. It is 1 to 3 % of the work.
        "*.backbone.conv1",
        # The final projection and the sampler: nothing behind them averages their rounding out.
        "op:MatMul@*.backbone",
        "op:Gemm@*.backbone",
        "*.backbone.attnpool.c_proj",
        "*.alignment",
        "rerank",
        "op:LSTM",
    )
)
QUANTISED = ("Conv", "Gemm", "MatMul")
# NNCF would quantise these too: embeddings, which only move, and cheap operators on what is added up.
OTHERS = ("Add", "Attention", "AveragePool", "Gather")


@dataclass(frozen=True)
class QuantizationReport:
    """What was quantised."""

    samples: int
    products: int  # matrix products of a weight that run in int8
    products_float: int  # those with a weight that do not
    smoothed: int  # smoothing factors that joined the LayerNorm before them

    def line(self) -> str:
        """What to say of it."""
        return (
            f"int8: {self.products} of {self.products + self.products_float} matrix products with weights quantised, "
            f"calibrated on {self.samples} inputs"
        )


def quantize_graph(
    source: Path, target: Path, feeds: Sequence[Feed], *, islands: Islands = INT8_ISLANDS, external: bool = False
) -> QuantizationReport:
    """Write `source` (fp32) with int8 Q/DQ as `target`; `feeds` are single inputs of the graph, at least MIN_SAMPLES.

    With `external` the weights go into `<target>.data`. Raises UsageError where there are too few feeds, or a graph in
    which nothing would be quantised."""
    if len(feeds) < MIN_SAMPLES:
        raise UsageError(
            f"int8 needs {MIN_SAMPLES} inputs to calibrate on, but {len(feeds)} were found; give more data"
        )
    ignored = _ignored_nodes(ir.load(source), root_of(source), islands)
    proto = onnx.load(source)
    if not any(node.op_type in QUANTISED and node.name not in ignored for node in proto.graph.node):
        raise UsageError(f"{source.name} has no matrix product to quantise outside its islands; keep it in fp32")
    model = _quantized(proto, feeds, ignored)
    smoothed = _fold_smoothing(model.graph)
    _make_signed(model.graph)
    del model.graph.value_info[:]  # of types that have changed; shapes are inferred anew
    _check_zero_points(model.graph)
    onnx.save(model, target, save_as_external_data=external, location=f"{target.name}.data")
    onnx.checker.check_model(str(target), full_check=True)
    done = count_int8_products(model)
    return QuantizationReport(len(feeds), done, _products_of_weights(model.graph) - done, smoothed)


def count_int8_products(model: onnx.ModelProto) -> int:
    """MatMul, Gemm and Conv whose input and weight both come dequantised from int8."""
    dequantised = {out for node in model.graph.node if node.op_type == "DequantizeLinear" for out in node.output}
    return sum(node.op_type in QUANTISED and set(node.input[:2]) <= dequantised for node in model.graph.node)


def _quantized(proto: onnx.ModelProto, feeds: Sequence[Feed], ignored: set[str]) -> onnx.ModelProto:
    with _quiet():
        import nncf
        from nncf.quantization.range_estimator import RangeEstimatorParametersSet

        result: onnx.ModelProto = nncf.quantize(
            proto,
            nncf.Dataset([dict(feed) for feed in feeds]),
            model_type=nncf.ModelType.TRANSFORMER,
            preset=nncf.QuantizationPreset.PERFORMANCE,  # symmetric activations
            subset_size=len(feeds),
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                # The extremes over all inputs. NNCF's own choice, their mean over inputs, clips half of them.
                activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX
            ),
            ignored_scope=nncf.IgnoredScope(names=sorted(ignored)),
        )
    return result


def _ignored_nodes(model: ir.Model, root: str, islands: Islands) -> set[str]:
    """Products inside an island, those of two activations, and what is no product."""
    names = module_names(model.graph, root)
    return {
        node.name or ""
        for node in model.graph
        if node.op_type in OTHERS
        or (
            node.op_type in QUANTISED
            and (islands.rule_for(node.op_type, names[node]) is not None or not _has_weight(node))
        )
    }


def _has_weight(node: ir.Node) -> bool:
    return any(value is not None and value.const_value is not None for value in node.inputs[:2])


def _products_of_weights(graph: onnx.GraphProto) -> int:
    constant = {initializer.name for initializer in graph.initializer}
    for node in graph.node:
        if node.op_type in ("DequantizeLinear", "QuantizeLinear", "Transpose") and node.input[0] in constant:
            constant.update(node.output)
    return sum(node.op_type in QUANTISED and bool(set(node.input[:2]) & constant) for node in graph.node)


def _fold_smoothing(graph: onnx.GraphProto) -> int:
    """Where SmoothQuant multiplies what a LayerNorm gives, its factors join the norm's weight and bias: one pass over
    the activations less for each."""
    weights = {initializer.name: initializer for initializer in graph.initializer}
    makers = {out: node for node in graph.node for out in node.output}
    readers: dict[str, int] = {}
    for node in graph.node:
        for name in node.input:
            readers[name] = readers.get(name, 0) + 1
    renamed, removed = {}, []
    for node in graph.node:
        norm = makers.get(node.input[0]) if node.op_type == "Mul" else None
        if norm is None or norm.op_type != "LayerNormalization" or node.input[1] not in weights:
            continue
        factors = numpy_helper.to_array(weights[node.input[1]])
        scale = numpy_helper.to_array(weights[norm.input[1]])
        if readers[norm.output[0]] != 1 or factors.size not in (1, scale.size):
            continue
        for place in range(1, len(norm.input)):
            name = f"{norm.input[place]}_{norm.name}_smoothed"
            joined = numpy_helper.to_array(weights[norm.input[place]]) * factors.reshape(-1)
            graph.initializer.append(numpy_helper.from_array(joined.astype(np.float32), name))
            norm.input[place] = name
        renamed[node.output[0]] = norm.output[0]
        removed.append(node)
    for node in removed:
        graph.node.remove(node)
    for node in graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = renamed.get(name, name)
    return len(removed)


def _make_signed(graph: onnx.GraphProto) -> None:
    """What is never negative (behind a ReLU) NNCF quantises to uint8, which TensorRT does not take: the same range in
    int8, with steps twice as large."""
    weights = {initializer.name: initializer for initializer in graph.initializer}
    done = set()
    for node in graph.node:
        if node.op_type not in ("DequantizeLinear", "QuantizeLinear"):
            continue
        zero = numpy_helper.to_array(weights[node.input[2]])
        if zero.dtype == np.uint8 and not zero.any():
            scale_name, zero_name = (f"{node.input[place]}_signed" for place in (1, 2))
            if scale_name not in done:
                scale = numpy_helper.to_array(weights[node.input[1]]) * np.float32(255 / 127)
                graph.initializer.append(numpy_helper.from_array(scale.astype(np.float32), scale_name))
            if zero_name not in done:
                graph.initializer.append(numpy_helper.from_array(zero.astype(np.int8), zero_name))
            done |= {scale_name, zero_name}
            node.input[1], node.input[2] = scale_name, zero_name
    _drop_unread_weights(graph)


def _drop_unread_weights(graph: onnx.GraphProto) -> None:
    read = {name for node in graph.node for name in node.input}
    for initializer in [i for i in graph.initializer if i.name not in read]:
        graph.initializer.remove(initializer)


def _check_zero_points(graph: onnx.GraphProto) -> None:
    weights = {initializer.name: initializer for initializer in graph.initializer}
    for node in graph.node:
        if node.op_type in ("DequantizeLinear", "QuantizeLinear") and len(node.input) > 2:
            zero = numpy_helper.to_array(weights[node.input[2]])
            assert zero.dtype == np.int8, node.name
            assert not zero.any(), node.name


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """NNCF draws bars and tells its progress; what matters is counted on the graph afterwards."""
    logger = logging.getLogger("nncf")
    level = logger.level
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)
