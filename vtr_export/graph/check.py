"""ONNX file -> the tensors it declares, or the reason why it must not be shipped."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, cast

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import nn

from vtr_runtime.errors import GateError
from vtr_runtime.manifest import GraphSpec, TensorSpec, TextSpec

from .trace import TracedGraph

DTYPES: dict[int, Literal["uint8", "bool", "int32", "float32"]] = {
    onnx.TensorProto.UINT8: "uint8",
    onnx.TensorProto.BOOL: "bool",
    onnx.TensorProto.INT32: "int32",
    onnx.TensorProto.FLOAT: "float32",
}
RANDOM_OPERATORS = frozenset({"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial"})
BATCHES = (1, 3, 8)
LENGTHS = (2, 16, 77)
Feed = dict[str, NDArray[np.generic]]
# fp32 against fp32 on unit vectors (the same limit and reason as conformance's FP32_UNIT).
LIMIT = 1e-5


def count_nodes(path: Path) -> int:
    return len(onnx.load(path, load_external_data=False).graph.node)


def describe_graph(graph: TracedGraph) -> GraphSpec:
    """Run onnx's checker with full shape inference, and read the names, types and axes back from the file."""
    onnx.checker.check_model(str(graph.path), full_check=True)
    proto = onnx.load(graph.path, load_external_data=False)
    if random := {node.op_type for node in proto.graph.node} & RANDOM_OPERATORS:
        raise GateError(
            f"{graph.path.name} holds random operators ({', '.join(sorted(random))}); a graph must be a function"
        )
    inputs = tuple(_tensor(value) for value in proto.graph.input)
    outputs = tuple(_tensor(value) for value in proto.graph.output)
    for tensor in inputs:
        _check_axes(tensor, graph.dynamic_axes[tensor.name], graph.path.name)
    for tensor in outputs:
        _check_axes(tensor, graph.dynamic_axes[tensor.name], graph.path.name)
    names = (tuple(t.name for t in inputs), tuple(t.name for t in outputs))
    if names != (graph.input_names, graph.output_names):
        raise GateError(
            f"{graph.path.name} has inputs and outputs {names}, not {(graph.input_names, graph.output_names)}"
        )
    data = graph.external_data.name if graph.external_data else None
    return GraphSpec(file=graph.path.name, inputs=inputs, outputs=outputs, external_data=data)


def _tensor(value: onnx.ValueInfoProto) -> TensorSpec:
    kind = value.type.tensor_type
    shape = tuple(dim.dim_param or dim.dim_value for dim in kind.shape.dim)
    if kind.elem_type not in DTYPES:
        found = onnx.TensorProto.DataType.Name(kind.elem_type)
        raise GateError(f"{value.name} is of type {found}; a host gives and takes {', '.join(DTYPES.values())} only")
    return TensorSpec(name=value.name, dtype=DTYPES[kind.elem_type], shape=shape)


def _check_axes(tensor: TensorSpec, dynamic: dict[int, str], file: str) -> None:
    found = {axis: size for axis, size in enumerate(tensor.shape) if not isinstance(size, int) or size == 0}
    if found != dynamic:
        raise GateError(
            f"{file}: {tensor.name} has the dynamic axes {found} where {dynamic} are due; the tracer fixed or freed one"
        )


def compare_graph(graph: TracedGraph, module: nn.Module, text: TextSpec) -> float:
    """Run the graph and the trained module at every batch and length of BATCHES and LENGTHS: the largest difference of
    the first output, over the largest value where that is above 1 (features are not of unit length).

    `module` takes the graph's inputs in their order. GateError where the difference exceeds LIMIT."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(graph.path), options, providers=["CPUExecutionProvider"])
    inputs = tuple(_tensor(value) for value in onnx.load(graph.path, load_external_data=False).graph.input)
    lengths = [0]  # of a graph that takes no tokens
    if any("tokens" in tensor.shape for tensor in inputs):
        lengths = [length for length in LENGTHS if length <= text.context_length]
    worst = 0.0
    for seed, batch in enumerate(BATCHES):
        for length in lengths:
            feed = draw_inputs(np.random.default_rng([seed, length]), inputs, batch, length, text)
            difference = _largest_difference(graph, module, session, feed)
            worst = max(worst, difference)
            if not difference <= LIMIT:
                at = f"batch {batch}" + (f", {length} tokens" if length else "")
                raise GateError(
                    f"{graph.path.name} differs from PyTorch by {difference:.3g} at {at}; the limit is {LIMIT:g}"
                )
    return worst


def _largest_difference(
    graph: TracedGraph, module: nn.Module, session: onnxruntime.InferenceSession, feed: Feed
) -> float:
    with torch.inference_mode():
        given = module(*(torch.from_numpy(feed[name]) for name in graph.input_names))
    want = (given[0] if isinstance(given, tuple) else given).numpy()
    # Further outputs are judged by conformance.
    got = cast(NDArray[np.float32], session.run([graph.output_names[0]], feed)[0])
    return float(np.abs(want - got).max() / max(1.0, np.abs(want).max()))


def draw_inputs(
    generator: np.random.Generator, inputs: tuple[TensorSpec, ...], batch: int, length: int, text: TextSpec
) -> Feed:
    """Random inputs of a graph: pictures, sentences of random words, unit vectors; every row has another mask."""
    sizes = {"batch": batch, "candidates": batch, "tokens": length}
    feed: Feed = {}
    for tensor in inputs:
        shape = tuple(size if isinstance(size, int) else sizes[size] for size in tensor.shape)
        if tensor.name == "input_ids":
            feed[tensor.name] = random_ids(generator, batch, length, text)
        elif tensor.name == "word_mask":  # between start and end, or the end alone
            feed[tensor.name] = (np.arange(length) > 0) & (np.arange(length) < max(2, length - 1))
        elif tensor.name == "word_weights":
            feed[tensor.name] = generator.integers(1, 3, shape).astype(np.float32)
        elif tensor.dtype == "bool":
            valid = np.array([shape[1] if row == 0 else 1 + row % shape[1] for row in range(shape[0])])
            feed[tensor.name] = np.arange(shape[1]) < valid[:, None]
        elif tensor.dtype == "uint8":
            feed[tensor.name] = generator.integers(0, 256, shape, dtype=np.uint8)
        else:
            vectors = generator.normal(size=shape)
            feed[tensor.name] = (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)
    return feed


def random_ids(generator: np.random.Generator, batch: int, length: int, spec: TextSpec) -> NDArray[np.int32]:
    """Rows of random words whose end token stands at different places; what follows it is zero."""
    ids = generator.integers(1, spec.start_id, (batch, length)).astype(np.int32)
    ids[:, 0] = spec.start_id
    for row in range(batch):
        end = length - 1 if row == 0 else int(generator.integers(1, length))
        ids[row, end], ids[row, end + 1 :] = spec.end_id, 0
    return ids
