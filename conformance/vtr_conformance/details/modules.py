"""Where rounding comes in: each graph run in its own types and in float64 side by side, compared module by module.

Both executions go on in step and only what is still to be read is kept, so memory is that of two runs of few rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import onnx_ir as ir
import torch
from torch import Tensor

from vtr_export.graph.module_names import module_names, root_of
from vtr_export.precision.execute import TypedGraph
from vtr_export.precision.float64 import Float64Graph
from vtr_runtime.bundle import Bundle

from ..cases import Case
from ..hosts.base import Arrays
from .records import ModuleError

# Golden rows that are run. In float64, two clips of ViT-B/32 take some ten seconds on one core.
CLIPS, TEXTS = 2, 4


def graph_feeds(bundle: Bundle, cases: Sequence[Case]) -> dict[str, Arrays]:
    """The golden inputs of each graph that the bundle has, a few rows of them."""
    graphs = bundle.manifest.graphs.named()
    feeds: dict[str, Arrays] = {}
    for case in cases:
        arrays = case.arrays or {}
        if case.stage == "rerank":
            feeds.setdefault("rerank", arrays)
        elif case.stage == "video_embedding" and "frames" in arrays:
            feeds["video"] = {name: array[:CLIPS] for name, array in arrays.items()}
        elif case.stage == "aligned" and "input_ids" in arrays:
            feeds["text"] = {name: array[:TEXTS] for name, array in arrays.items()}
    if "frames" in graphs and "temporal" in graphs and "video" in feeds:
        # The video tower in two: the second half gets what the first one gives.
        frames, mask = feeds["video"]["frames"], feeds["video"]["frame_mask"]
        feeds["frames"] = {"frames": frames.reshape(-1, *frames.shape[2:])}
        features = TypedGraph(bundle.file(graphs["frames"].file))(feeds["frames"])["features"]
        feeds["temporal"] = {"features": features.reshape(*mask.shape, -1), "frame_mask": mask}
    return {name: feeds[name] for name in graphs if name in feeds}


def module_errors(name: str, path: Path, feed: Arrays) -> Iterator[ModuleError]:
    """One for each module that gives floats, in the order of the data: the error of what it gives last.

    BackendError for a graph that the typed executor cannot run."""
    model = ir.load(path)
    typed, exact = TypedGraph(model), Float64Graph(model)
    names = module_names(model.graph, root_of(path))
    operators = Counter(names.values())
    last = {names[node]: node for node in model.graph if any(_is_float(value) for value in node.outputs)}
    for (node, found), (_, wanted) in zip(typed.steps(feed), exact.steps(feed), strict=True):
        module = names[node]
        if last.get(module) is node:
            got, want = next(pair for pair in zip(found, wanted, strict=True) if pair[0].is_floating_point())
            yield ModuleError(name, module, relative_error(got, want), operators[module])


def relative_error(got: Tensor, want: Tensor) -> float:
    """|got - want| over |want|, in float64. What is the same infinity in both, such as a mask, is left out; a number
    that is finite in one alone is an infinite error."""
    a, b = got.double().flatten(), want.double().flatten()
    both = torch.isfinite(a) & torch.isfinite(b)
    if not (both | (a == b)).all():
        return float("inf")
    norm = float(b[both].norm())
    apart = float((a[both] - b[both]).norm())
    return apart / norm if norm else (0.0 if apart == 0 else float("inf"))


def _is_float(value: ir.Value) -> bool:
    return value.dtype is not None and value.dtype.is_floating_point()
