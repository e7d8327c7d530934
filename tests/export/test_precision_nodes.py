"""The typed executor against ONNX's own reference, node by node."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx.reference
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper

from vtr_export.precision.execute import TypedGraph
from vtr_runtime.errors import BackendError, UsageError

RNG = np.random.default_rng(0)
FLOAT_TYPES = {"fp16": (TensorProto.FLOAT16, np.float16), "bf16": (TensorProto.BFLOAT16, ml_dtypes.bfloat16)}


def typed_node(
    operator: str, arrays: list[Any], kind: int, *, opset: int = 23, low: int, **attributes: Any
) -> onnx.ModelProto:
    """A model of one node whose float inputs are cast to the low type, and its float output back."""
    nodes, names, inputs = [], [], []
    for index, array in enumerate(arrays):
        name = f"x{index}"
        inputs.append(helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape))
        if array.dtype == np.float32:
            nodes.append(helper.make_node("Cast", [name], [f"{name}_low"], to=low))
            name = f"{name}_low"
        names.append(name)
    nodes.append(helper.make_node(operator, names, ["y_low"], **attributes))
    nodes.append(helper.make_node("Cast", ["y_low"], ["y"], to=kind))
    output = helper.make_tensor_value_info("y", kind, None)
    graph = helper.make_graph(nodes, "g", inputs, [output])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def floats(*shape: int) -> Any:
    return RNG.standard_normal(shape).astype(np.float32)


NODES: dict[str, tuple[str, list[Any], dict[str, Any]]] = {
    "product": ("MatMul", [floats(3, 40), floats(40, 5)], {}),
    "gemm": ("Gemm", [floats(3, 40), floats(5, 40), floats(5)], {"transB": 1}),
    "convolution": ("Conv", [floats(1, 3, 8, 8), floats(4, 3, 3, 3), floats(4)], {"pads": [1, 0, 1, 2]}),
    "pool": ("AveragePool", [floats(1, 3, 8, 8)], {"kernel_shape": [2, 2], "strides": [2, 2]}),
    "sum": ("Add", [floats(3, 4), floats(4)], {}),
    "norm": ("LayerNormalization", [10 * floats(3, 32), floats(32), floats(32)], {"axis": -1}),
    "softmax": ("Softmax", [floats(3, 7)], {"axis": -1}),
    "gelu": ("Gelu", [floats(3, 7)], {"approximate": "tanh"}),
    "sigmoid": ("Sigmoid", [floats(3, 7)], {}),
    "power": ("Pow", [np.abs(floats(3, 7)), np.array(3.0, np.float32)], {}),
    "length": ("ReduceL2", [floats(3, 7), np.array([1])], {"keepdims": 1}),
    "attention": (
        "Attention",
        [floats(2, 5, 8), floats(2, 6, 8), floats(2, 6, 8)],
        {"q_num_heads": 2, "kv_num_heads": 2},
    ),
    "masked attention": (
        "Attention",
        [floats(2, 2, 5, 4), floats(2, 2, 6, 4), floats(2, 2, 6, 4), np.where(floats(5, 6) > 0, 0, -1e4).astype("f4")],
        {"scale": 1.0, "softmax_precision": 1},
    ),
    "gather": ("Gather", [floats(5, 3), np.array([[4, -1], [0, 2]])], {}),
    "padding": ("Pad", [floats(2, 3), np.array([1, 0, 0, 2]), np.array(0.5, np.float32)], {}),
    "places": ("ArgMax", [np.array([[1, 3, 3], [2, 2, 0]], np.float32)], {"axis": 1, "keepdims": 0}),
    "best": ("TopK", [floats(3, 7), np.array([1])], {}),
    "slice": ("Slice", [floats(6, 5), np.array([4]), np.array([0]), np.array([0]), np.array([-2])], {}),
}


@pytest.mark.parametrize("precision", FLOAT_TYPES)
@pytest.mark.parametrize("name", NODES)
def test_a_typed_node_is_the_reference_rounded(name: str, precision: str) -> None:
    """ONNX's reference computes in NumPy on what has been rounded to the type; a sum in another order may round the
    other way, so results may differ by one or two units of the type."""
    operator, arrays, attributes = NODES[name]
    low, dtype = FLOAT_TYPES[precision]
    kind = TensorProto.INT64 if operator == "ArgMax" else TensorProto.FLOAT
    model = typed_node(operator, arrays, kind, low=low, **attributes)
    feed = {f"x{index}": array for index, array in enumerate(arrays)}
    rounded = {k: a.astype(dtype).astype(np.float32) if a.dtype == np.float32 else a for k, a in feed.items()}
    plain = onnx.ModelProto()
    plain.CopyFrom(model)
    for node in plain.graph.node:
        for attribute in node.attribute:
            if attribute.name == "to" and attribute.i == low:
                attribute.i = TensorProto.FLOAT
    want = onnx.reference.ReferenceEvaluator(plain).run(None, rounded)[0]
    got = TypedGraph(ir.from_proto(model))(feed)["y"]
    unit = float(ml_dtypes.finfo(dtype).eps)
    assert got.shape == want.shape
    assert np.abs(got - want).max() <= 3 * unit * max(1.0, float(np.abs(want).max()))
    if kind == TensorProto.FLOAT:
        assert np.array_equal(got, got.astype(dtype).astype(np.float32)), "the result is not of the declared type"


def test_products_are_summed_in_fp32() -> None:
    """4,096 ones: a sum that is kept in bf16 stops at 256."""
    model = typed_node("MatMul", [np.ones((1, 4096), "f4"), np.ones((4096, 1), "f4")], 1, low=TensorProto.BFLOAT16)
    feed = {"x0": np.ones((1, 4096), "f4"), "x1": np.ones((4096, 1), "f4")}
    assert TypedGraph(ir.from_proto(model))(feed)["y"].item() == 4096


def test_a_type_overflows_where_it_would() -> None:
    feed = {"x0": np.array([300.0], np.float32), "x1": np.array([300.0], np.float32)}
    for precision, finite in (("fp16", False), ("bf16", True)):
        model = typed_node("Mul", list(feed.values()), 1, low=FLOAT_TYPES[precision][0])
        assert np.isfinite(TypedGraph(ir.from_proto(model))(feed)["y"]).all() == finite


def test_statistics_are_kept_in_their_stash_type() -> None:
    """The square of 300 is above fp16's largest number: kept in fp32 the norm is right, kept in fp16 it is not."""
    x = np.array([[300.0, -300.0, 600.0, -600.0]], np.float32)
    one = np.ones(4, np.float32)
    want = x / np.sqrt((x**2).mean())
    for stash, right in ((TensorProto.FLOAT, True), (TensorProto.FLOAT16, False)):
        model = typed_node("LayerNormalization", [x, one], 1, low=TensorProto.FLOAT16, stash_type=stash)
        got = TypedGraph(ir.from_proto(model))({"x0": x, "x1": one})["y"]
        assert bool(np.abs(got - want).max() < 1e-3) == right


def test_quantised_nodes_give_what_onnx_runtime_gives() -> None:
    x, scale, zero = 3 * floats(4, 6), np.array([0.1, 0.02, 0.3, 0.04, 0.5, 0.6], "f4"), np.zeros(6, np.int8)
    inputs = [helper.make_tensor_value_info("x", 1, [4, 6])]
    weights = [onnx.numpy_helper.from_array(scale, "s"), onnx.numpy_helper.from_array(zero, "z")]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], axis=1),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], axis=1),
    ]
    graph = helper.make_graph(nodes, "g", inputs, [helper.make_tensor_value_info("y", 1, [4, 6])], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    [want] = session.run(None, {"x": x})
    assert np.abs(TypedGraph(ir.from_proto(model))({"x": x})["y"] - want).max() < 1e-6


def test_what_cannot_be_run_is_named() -> None:
    x = floats(2, 3)
    with pytest.raises(BackendError, match="operators that the typed executor does not know: HardSwish"):
        TypedGraph(ir.from_proto(typed_node("HardSwish", [x], 1, low=TensorProto.FLOAT16)))
    mixed = typed_node("Add", [x, x], 1, low=TensorProto.FLOAT16)
    mixed.graph.node[2].input[1] = "x1"
    with pytest.raises(BackendError, match=r"Add .* mixes torch\.float16, torch\.float32"):
        TypedGraph(ir.from_proto(mixed))({"x0": x, "x1": x})
    model = TypedGraph(ir.from_proto(typed_node("Relu", [x], 1, low=TensorProto.FLOAT16)))
    with pytest.raises(UsageError, match="takes x0, not frames"):
        model({"frames": x})
    with pytest.raises(UsageError, match="x0 is float64"):
        model({"x0": x.astype(np.float64)})
