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
from vtr_runtime.manifest import FrameSpec, GraphSpec, TensorSpec, TextSpec

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
        _check_axes(tensor, {0: "batch"}, graph.path.name)
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
    return TensorSpec(name=value.name, dtype=DTYPES[kind.elem_type], shape=shape)


def _check_axes(tensor: TensorSpec, dynamic: dict[int, str], file: str) -> None:
    found = {axis: size for axis, size in enumerate(tensor.shape) if not isinstance(size, int) or size == 0}
    if found != dynamic:
        raise GateError(
            f"{file}: {tensor.name} has the dynamic axes {found} where {dynamic} are due; the tracer fixed or freed one"
        )


def compare_with_torch(graph: TracedGraph, tower: nn.Module, frames: FrameSpec, text: TextSpec) -> float:
    """Run the graph and the trained tower at every batch and length of BATCHES and LENGTHS: the largest difference."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(graph.path), options, providers=["CPUExecutionProvider"])
    worst = 0.0
    lengths = [0]  # of a graph that takes no tokens
    if "input_ids" in graph.input_names:
        lengths = [length for length in LENGTHS if length <= text.context_length]
    for seed, batch in enumerate(BATCHES):
        for length in lengths:
            generator = np.random.default_rng([seed, length])
            if length:
                feed: dict[str, NDArray[np.generic]] = {"input_ids": random_ids(generator, batch, length, text)}
            else:
                feed = random_frames(generator, batch, frames)
            difference = _largest_difference(graph, tower, session, feed)
            worst = max(worst, difference)
            if not difference <= LIMIT:
                at = f"batch {batch}" + (f", {length} tokens" if length else "")
                raise GateError(
                    f"{graph.path.name} differs from PyTorch by {difference:.3g} at {at}; the limit is {LIMIT:g}"
                )
    return worst


def _largest_difference(
    graph: TracedGraph, tower: nn.Module, session: onnxruntime.InferenceSession, feed: dict[str, NDArray[np.generic]]
) -> float:
    with torch.inference_mode():
        want = tower(*(torch.from_numpy(feed[name]) for name in graph.input_names)).numpy()
    # Inner stages of a debug graph are judged by conformance.
    got = cast(NDArray[np.float32], session.run(["embedding"], feed)[0])
    return float(np.abs(want - got).max())


def random_ids(generator: np.random.Generator, batch: int, length: int, spec: TextSpec) -> NDArray[np.int32]:
    """Rows of random words whose end token stands at different places; what follows it is zero."""
    ids = generator.integers(1, spec.start_id, (batch, length)).astype(np.int32)
    ids[:, 0] = spec.start_id
    for row in range(batch):
        end = length - 1 if row == 0 else int(generator.integers(1, length))
        ids[row, end], ids[row, end + 1 :] = spec.end_id, 0
    return ids


def random_frames(generator: np.random.Generator, batch: int, spec: FrameSpec) -> dict[str, NDArray[np.generic]]:
    """Random pictures; every row has another number of valid frames."""
    frames = generator.integers(0, 256, (batch, spec.count, spec.size, spec.size, 3), dtype=np.uint8)
    valid = np.array([spec.count if row == 0 else 1 + row % spec.count for row in range(batch)])
    return {"frames": frames, "frame_mask": np.arange(spec.count) < valid[:, None]}
