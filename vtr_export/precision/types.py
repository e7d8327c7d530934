"""The type in which each node of a graph computes, once its islands are drawn."""

from __future__ import annotations

from dataclasses import dataclass

import onnx
import onnx_ir as ir

from .islands import WHOLE_MODULE, Islands

FP32 = ir.DataType.FLOAT
# They move numbers and compute none, so they take the type of what they are given: a cast there is one for nothing.
MOVES = frozenset(
    {
        "Concat",
        "Expand",
        "Flatten",
        "Gather",
        "GatherElements",
        "GatherND",
        "Identity",
        "Pad",
        "Reshape",
        "Slice",
        "Split",
    }
    | {"Squeeze", "Tile", "Transpose", "Trilu", "Unsqueeze", "Where"}
)
# What follows a sum in an island belongs to it: the square root, the lower bound and the division of a norm or a mean.
REDUCTIONS = frozenset({"ReduceL1", "ReduceL2", "ReduceMean", "ReduceSum", "ReduceSumSquare"})
_BOUNDS = frozenset({"Clip", "Max", "Sqrt"})
NOT_IN_OPSET = "the opset has no such type for"


@dataclass(frozen=True)
class NodeType:
    type: ir.DataType
    reason: str | None = None  # the rule that keeps it in fp32


def choose_types(
    graph: ir.Graph, names: dict[ir.Node, str], islands: Islands, low: ir.DataType
) -> dict[ir.Node, NodeType]:
    """For every node that takes or gives floats: `low`, or FLOAT with the reason."""
    whole = {
        names[node]: rule
        for node in graph
        if node.op_type in WHOLE_MODULE and (rule := islands.rule_for(node.op_type, names[node]))
    }
    opset = graph.opset_imports[""]
    chosen: dict[ir.Node, NodeType] = {}
    for node in graph:
        if not _has_floats(node):
            continue
        moved = _moved_type(node, chosen) if node.op_type in MOVES else None
        if moved is not None:
            chosen[node] = moved
            continue
        reason = (
            islands.rule_for(node.op_type, names[node])
            or whole.get(names[node])
            or _follows(node, chosen)
            or (None if _in_opset(node.op_type, opset, low) else f"{NOT_IN_OPSET} {node.op_type}")
        )
        chosen[node] = NodeType(FP32, reason) if reason else NodeType(low)
    for node in chosen:
        if _is_exact_cast(node) and all(chosen[use.node].type == low for use in node.outputs[0].uses()):
            chosen[node] = NodeType(low)
    return chosen


def _is_exact_cast(node: ir.Node) -> bool:
    """Masks and pixels are exact in every type, so they go to their readers' in one step."""
    [value, *_] = node.inputs or [None]
    exact = node.op_type == "Cast" and value is not None and value.dtype in (ir.DataType.BOOL, ir.DataType.UINT8)
    return exact and not node.outputs[0].is_graph_output()


def float_inputs(node: ir.Node) -> list[ir.Value]:
    return [value for value in node.inputs if value is not None and value.dtype == FP32]


def _has_floats(node: ir.Node) -> bool:
    return bool(float_inputs(node)) or any(value.dtype == FP32 for value in node.outputs)


def _moved_type(node: ir.Node, chosen: dict[ir.Node, NodeType]) -> NodeType | None:
    """The type of what it moves; fp32, which loses nothing, where that is of both types; None where all is constant."""
    found = []
    for value in float_inputs(node):
        producer = value.producer()
        if producer is not None:
            found.append(chosen[producer])
        elif value.is_graph_input():
            found.append(NodeType(FP32, "graph input"))
    return next((item for item in found if item.type == FP32), found[0] if found else None)


def _follows(node: ir.Node, chosen: dict[ir.Node, NodeType]) -> str | None:
    """The rule of the reduction that a bound is put on, or that is divided by."""
    place = {"Div": 1, **dict.fromkeys(_BOUNDS, 0)}.get(node.op_type)
    value = None if place is None else node.inputs[place]
    source = None if value is None else value.producer()
    while source is not None and source.op_type in MOVES | _BOUNDS:
        before = source.inputs[0]
        source = None if before is None else before.producer()
    return chosen[source].reason if source is not None and source.op_type in REDUCTIONS else None


def _in_opset(operator: str, opset: int, low: ir.DataType) -> bool:
    """Whether the operator's every float type may be the low one (Conv takes bf16 from opset 22 on)."""
    wanted = f"tensor({low.name.lower()})"
    constraints = onnx.defs.get_schema(operator, opset).type_constraints
    return all(wanted in c.allowed_type_strs for c in constraints if "tensor(float)" in c.allowed_type_strs)
