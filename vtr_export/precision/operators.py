"""ONNX operators in PyTorch, in fp32 or on integers: what TypedGraph runs, before it rounds.

A function takes a Call and gives a tensor or several. Inputs of 16 bits come as float32 copies; float64.py gives all
floats in float64, and nothing here may round those."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

Result = Tensor | tuple[Tensor, ...]
TORCH_TYPES: dict[int, torch.dtype] = {
    1: torch.float32,
    2: torch.uint8,
    3: torch.int8,
    6: torch.int32,
    7: torch.int64,
    9: torch.bool,
    10: torch.float16,
    11: torch.float64,
    16: torch.bfloat16,
}


@dataclass(frozen=True)
class Call:
    """One node's inputs (None where left out) and attributes; `low` is the 16-bit type of its floats, if they are."""

    inputs: Sequence[Tensor | None]
    attributes: dict[str, Any]
    outputs: int
    low: torch.dtype | None

    def __getitem__(self, index: int) -> Tensor:
        value = self.inputs[index]
        assert value is not None
        return value

    def optional(self, index: int) -> Tensor | None:
        return self.inputs[index] if index < len(self.inputs) else None

    def integers(self, index: int) -> list[int] | None:
        value = self.optional(index)
        return None if value is None else [int(item) for item in value.reshape(-1).tolist()]

    def get(self, name: str, default: Any) -> Any:
        return self.attributes.get(name, default)

    def rounded(self, x: Tensor) -> Tensor:
        """To the node's type and back, for what an operator keeps in it between its steps."""
        return x if self.low is None else x.to(self.low).float()


def _elementwise(function: Callable[..., Tensor]) -> Callable[[Call], Tensor]:
    return lambda call: function(*(value for value in call.inputs if value is not None))


def _fold(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Call], Tensor]:
    def run(call: Call) -> Tensor:
        result = call[0]
        for value in call.inputs[1:]:
            assert value is not None
            result = function(result, value)
        return result

    return run


def _range(start: Tensor, end: Tensor, step: Tensor) -> Tensor:
    return torch.arange(start.item(), end.item(), step.item(), dtype=start.dtype, device=start.device)


def _div(call: Call) -> Tensor:
    if call[0].is_floating_point():
        return call[0] / call[1]
    return torch.div(call[0], call[1], rounding_mode="trunc")


def _reduce(function: Callable[[Tensor, tuple[int, ...], bool], Tensor]) -> Callable[[Call], Tensor]:
    def run(call: Call) -> Tensor:
        axes = call.integers(1) if call.optional(1) is not None else call.get("axes", None)
        if not axes and call.get("noop_with_empty_axes", 0):
            return call[0]
        over = tuple(axes) if axes else tuple(range(call[0].dim()))
        return function(call[0], over, bool(call.get("keepdims", 1)))

    return run


def _softmax(call: Call) -> Tensor:
    axis: int = call.get("axis", -1)
    return call[0].softmax(dim=axis)


def _layer_norm(call: Call) -> Tensor:
    """Statistics in the stash type; normalised there, rounded to the node's type, then scaled and shifted in it."""
    x, axis = call[0], call.get("axis", -1)
    over = tuple(range(axis % x.dim(), x.dim()))
    stash = TORCH_TYPES[call.get("stash_type", 1)]

    def kept(value: Tensor) -> Tensor:
        return value if x.dtype == torch.float64 else value.to(stash).float()

    centred = kept(x - kept(x.mean(over, keepdim=True)))
    variance = kept(kept(centred * centred).mean(over, keepdim=True))
    normed = call.rounded(kept(centred * kept((variance + call.get("epsilon", 1e-5)).rsqrt())))
    scaled = call.rounded(normed * call[1])
    shift = call.optional(2)
    return scaled if shift is None else scaled + shift


def _gemm(call: Call) -> Tensor:
    a = call[0].T if call.get("transA", 0) else call[0]
    b = call[1].T if call.get("transB", 0) else call[1]
    alpha: float = call.get("alpha", 1.0)
    beta: float = call.get("beta", 1.0)
    product, bias = alpha * (a @ b), call.optional(2)
    return product if bias is None else product + beta * bias


def _window(call: Call, rank: int) -> tuple[list[int], list[int]]:
    """Strides, and pads in F.pad's order."""
    if call.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID") or call.get("ceil_mode", 0):
        raise NotImplementedError("automatic padding")
    pads = call.get("pads", [0] * 2 * rank)
    ordered = [pads[side * rank + axis] for axis in reversed(range(rank)) for side in (0, 1)]
    return call.get("strides", [1] * rank), ordered


def _conv(call: Call) -> Tensor:
    strides, pads = _window(call, call[0].dim() - 2)
    if call[0].dim() != 4:
        raise NotImplementedError("other than two spatial axes")
    padded = F.pad(call[0], pads)
    dilations = call.get("dilations", [1, 1])
    return F.conv2d(padded, call[1], call.optional(2), strides, 0, dilations, call.get("group", 1))


def _average_pool(call: Call) -> Tensor:
    kernel = call.attributes["kernel_shape"]
    strides, pads = _window(call, len(kernel))
    if any(pads) and not call.get("count_include_pad", 0):
        raise NotImplementedError("padding that is not counted")
    return F.avg_pool2d(F.pad(call[0], pads), kernel, strides)


def _reshape(call: Call) -> Tensor:
    shape = call.integers(1) or []
    if not call.get("allowzero", 0):
        shape = [call[0].shape[axis] if size == 0 else size for axis, size in enumerate(shape)]
    return call[0].reshape(shape)


def _transpose(call: Call) -> Tensor:
    return call[0].permute(call.get("perm", list(reversed(range(call[0].dim())))))


def _unsqueeze(call: Call) -> Tensor:
    axes = call.integers(1) or []
    rank = call[0].dim() + len(axes)
    result = call[0]
    for axis in sorted(axis % rank for axis in axes):
        result = result.unsqueeze(axis)
    return result


def _squeeze(call: Call) -> Tensor:
    axes = call.integers(1)
    return call[0].squeeze() if axes is None else call[0].squeeze(tuple(axes))


def _slice(call: Call) -> Tensor:
    starts, ends = call.integers(1) or [], call.integers(2) or []
    axes, steps = call.integers(3) or list(range(len(starts))), call.integers(4) or [1] * len(starts)
    result = call[0]
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        places = range(result.shape[axis])[slice(start, end, step)]
        result = result.index_select(axis, torch.tensor(list(places), dtype=torch.int64, device=result.device))
    return result


def _split(call: Call) -> Result:
    axis, sizes = call.get("axis", 0), call.integers(1)
    return torch.split(call[0], sizes or -(-call[0].shape[axis] // call.outputs), dim=axis)  # the last may be smaller


def _wrapped(indices: Tensor, size: int) -> Tensor:
    return torch.where(indices < 0, indices + size, indices).long()


def _gather(call: Call) -> Tensor:
    axis = call.get("axis", 0) % call[0].dim()
    indices = _wrapped(call[1], call[0].shape[axis])
    shape = (*call[0].shape[:axis], *indices.shape, *call[0].shape[axis + 1 :])
    return call[0].index_select(axis, indices.reshape(-1)).reshape(shape)


def _gather_elements(call: Call) -> Tensor:
    axis = call.get("axis", 0)
    return call[0].gather(axis, _wrapped(call[1], call[0].shape[axis]))


def _gather_nd(call: Call) -> Tensor:
    if call.get("batch_dims", 0):
        raise NotImplementedError("batch_dims")
    parts = call[1].unbind(-1)
    return call[0][tuple(_wrapped(part, call[0].shape[axis]) for axis, part in enumerate(parts))]


def _expand(call: Call) -> Tensor:
    shape = np.broadcast_shapes(tuple(call[0].shape), tuple(call.integers(1) or ()))
    return call[0].expand(shape)


def _pad(call: Call) -> Tensor:
    if call.get("mode", "constant") != "constant":
        raise NotImplementedError("other than constant padding")
    pads, value, rank = call.integers(1) or [], call.optional(2), call[0].dim()
    axes = [axis % rank for axis in call.integers(3) or range(rank)]
    both = dict(zip(axes, zip(pads[: len(axes)], pads[len(axes) :], strict=True), strict=True))
    ordered = [amount for axis in reversed(range(rank)) for amount in both.get(axis, (0, 0))]
    return F.pad(call[0], ordered, value=0.0 if value is None else value.item())


def _clip(call: Call) -> Tensor:
    low, high = call.optional(1), call.optional(2)
    result = call[0] if low is None else torch.maximum(call[0], low)
    return result if high is None else torch.minimum(result, high)


def _arg_max(call: Call) -> Tensor:
    """The first of equals, as ONNX wants it, and torch.argmax does not promise."""
    axis, x = call.get("axis", 0), call[0]
    if call.get("select_last_index", 0):
        raise NotImplementedError("the last of equals")
    best = x == x.amax(dim=axis, keepdim=True)
    first = (best & (best.cumsum(axis) == 1)).to(torch.int32)
    return first.argmax(dim=axis, keepdim=bool(call.get("keepdims", 1)))


def _top_k(call: Call) -> Result:
    [count] = call.integers(1) or [1]
    order = call[0].sort(dim=call.get("axis", -1), descending=bool(call.get("largest", 1)), stable=True)
    return order.values.narrow(call.get("axis", -1), 0, count), order.indices.narrow(call.get("axis", -1), 0, count)


def _constant_of_shape(call: Call) -> Tensor:
    value = call.get("value", torch.zeros(1))
    return torch.full(call.integers(0) or (), value.item(), dtype=value.dtype, device=call[0].device)


def _attention(call: Call) -> Tensor:
    """The operator's own definition (opset 23) and its roundings: scaled queries and keys, scores and probabilities in
    the node's type, the softmax in `softmax_precision`."""
    if call.outputs > 1 or call.optional(4) is not None or call.optional(5) is not None:
        raise NotImplementedError("cached keys and values")
    q, k, v, mask = call[0], call[1], call[2], call.optional(3)
    by_head = q.dim() == 3
    if by_head:
        q, k, v = (
            x.reshape(*x.shape[:2], call.attributes[f"{name}_num_heads"], -1).transpose(1, 2)
            for x, name in ((q, "q"), (k, "kv"), (v, "kv"))
        )
    if q.shape[1] != k.shape[1]:
        raise NotImplementedError("fewer heads of keys than of queries")
    scale = float(call.get("scale", q.shape[-1] ** -0.5))
    root = call.rounded(torch.tensor(scale, dtype=q.dtype).sqrt())
    scores = call.rounded(call.rounded(q * root) @ call.rounded(k * root).transpose(2, 3))
    if call.get("softcap", 0.0):
        raise NotImplementedError("softcap")
    if call.get("is_causal", 0):
        hidden = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(hidden, -torch.inf)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else call.rounded(scores + mask)
    stash = TORCH_TYPES[call.get("softmax_precision", 1)] if "softmax_precision" in call.attributes else call.low
    shares = scores.softmax(dim=-1)
    if stash is not None and shares.dtype != torch.float64:
        shares = shares.to(stash).float()
    seen = call.rounded(call.rounded(shares) @ v)
    return seen.transpose(1, 2).flatten(2) if by_head else seen


def _per_axis(x: Tensor, parameter: Tensor, axis: int) -> Tensor:
    return (
        parameter.reshape([-1 if i == axis % x.dim() else 1 for i in range(x.dim())]) if parameter.dim() else parameter
    )


def _quantize(call: Call) -> Tensor:
    x, zero = call[0], call.optional(2)
    kind = torch.uint8 if zero is None else zero.dtype
    scaled = (x / _per_axis(x, call[1], call.get("axis", 1))).round()
    shifted = scaled if zero is None else scaled + _per_axis(x, zero.float(), call.get("axis", 1))
    bounds = torch.iinfo(kind)
    return shifted.clamp(bounds.min, bounds.max).to(kind)


def _dequantize(call: Call) -> Tensor:
    x, zero = call[0].to(call[1].dtype), call.optional(2)
    if zero is not None:
        x = x - _per_axis(x, zero.to(x.dtype), call.get("axis", 1))
    return x * _per_axis(x, call[1], call.get("axis", 1))


def _shape(call: Call) -> Tensor:
    sizes = call[0].shape[call.get("start", 0) : call.get("end", None)]
    return torch.tensor(sizes, dtype=torch.int64, device=call[0].device)


def _trilu(call: Call) -> Tensor:
    [k] = call.integers(1) or [0]
    return call[0].triu(k) if call.get("upper", 1) else call[0].tril(k)


def _p_norm(order: int) -> Callable[[Call], Tensor]:
    return _reduce(lambda x, axes, keep: cast(Tensor, torch.linalg.vector_norm(x, order, axes, keepdim=keep)))


_POINTWISE: dict[str, Callable[..., Tensor]] = {
    "Abs": torch.abs,
    "Add": torch.add,
    "And": torch.logical_and,
    "Cos": torch.cos,
    "Equal": torch.eq,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Greater": torch.gt,
    "GreaterOrEqual": torch.ge,
    "Identity": torch.clone,
    "Less": torch.lt,
    "LessOrEqual": torch.le,
    "Log": torch.log,
    "MatMul": torch.matmul,
    "Mul": torch.mul,
    "Neg": torch.neg,
    "Not": torch.logical_not,
    "Or": torch.logical_or,
    "Pow": torch.pow,
    "Range": _range,
    "Reciprocal": torch.reciprocal,
    "Relu": torch.relu,
    "Sigmoid": torch.sigmoid,
    "Sin": torch.sin,
    "Sqrt": torch.sqrt,
    "Sub": torch.sub,
    "Tanh": torch.tanh,
    "Where": torch.where,
}
OPERATORS: dict[str, Callable[[Call], Result]] = {
    **{name: _elementwise(function) for name, function in _POINTWISE.items()},
    "ArgMax": _arg_max,
    "Attention": _attention,
    "AveragePool": _average_pool,
    "Clip": _clip,
    "Concat": lambda call: torch.cat([value for value in call.inputs if value is not None], call.attributes["axis"]),
    "ConstantOfShape": _constant_of_shape,
    "Conv": _conv,
    "DequantizeLinear": _dequantize,
    "Div": _div,
    "Expand": _expand,
    "Flatten": lambda call: call[0].reshape(call[0].shape[: call.get("axis", 1)].numel(), -1),
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "Gelu": lambda call: F.gelu(call[0], approximate=call.get("approximate", "none")),
    "Gemm": _gemm,
    "LayerNormalization": _layer_norm,
    "Max": _fold(torch.maximum),
    "Min": _fold(torch.minimum),
    "Pad": _pad,
    "QuantizeLinear": _quantize,
    "ReduceL1": _p_norm(1),
    "ReduceL2": _p_norm(2),
    "ReduceMax": _reduce(lambda x, axes, keep: x.amax(axes, keep)),
    "ReduceMean": _reduce(lambda x, axes, keep: x.mean(axes, keep)),
    "ReduceMin": _reduce(lambda x, axes, keep: x.amin(axes, keep)),
    "ReduceSum": _reduce(lambda x, axes, keep: x.sum(axes, keep)),
    "Reshape": _reshape,
    "Shape": _shape,
    "Slice": _slice,
    "Softmax": _softmax,
    "Split": _split,
    "Squeeze": _squeeze,
    "Swish": lambda call: call[0] * (call.get("alpha", 1.0) * call[0]).sigmoid(),
    "Tile": lambda call: call[0].repeat(call.integers(1) or []),
    "TopK": _top_k,
    "Transpose": _transpose,
    "Trilu": _trilu,
    "Unsqueeze": _unsqueeze,
}
