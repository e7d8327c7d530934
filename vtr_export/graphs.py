"""The graphs of a bundle: each is traced in fp32, held to PyTorch, counted, and lowered to the bundle's precision."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from torch import nn

from vtr_runtime.errors import GateError
from vtr_runtime.manifest import Graphs, GraphSpec, TextSpec
from vtr_runtime.precision import COSINE_LOSS, precision_of_graph
from vtr_runtime.targets import GraphPlan

from .graph.check import compare_graph, count_nodes, describe_graph, draw_inputs
from .graph.fold import fold_text_tower, fold_video_tower
from .graph.fusion import Fusion, expected_operators, find_operators
from .graph.module_names import module_names, root_of
from .graph.modules import FrameGraph, RerankGraph, TemporalGraph
from .graph.prune import prune_text_tower, prune_video_tower
from .graph.trace import (
    TracedGraph,
    trace_frame_encoder,
    trace_rerank,
    trace_temporal_head,
    trace_text,
    trace_video,
)
from .model.config import ModelConfig
from .model.retrieval import RetrievalModel
from .precision.execute import TypedGraph
from .precision.islands import HINT_RULES, Islands
from .precision.lower import lower_precision
from .precision.quantize import quantize_graph

# Graphs that no backend of conformance runs: held to PyTorch here, in every precision.
UNGATED = ("frames", "temporal")
Feeds = Mapping[str, Sequence[Mapping[str, NDArray[Any]]]]


@dataclass(frozen=True)
class GraphParts:
    """Which graphs and outputs a bundle is to have beside the two towers."""

    debug_outputs: bool = False
    rerank: bool = False
    split_video: bool = False


@dataclass(frozen=True)
class BuiltGraph:
    """A graph of the bundle. `difference` is the fp32 graph's largest from PyTorch, `fusion` counts its operators."""

    name: str
    spec: GraphSpec
    files: tuple[Path, ...]  # while it is being written
    megabytes: float
    nodes: int
    difference: float
    fusion: Fusion
    trained: nn.Module  # what it must equal
    notes: tuple[str, ...] = ()
    lowered: bool = False  # some of its products are of the bundle's precision


@dataclass(frozen=True)
class GraphSource:
    """How to trace a graph into a file, and the trained module that it must equal."""

    name: str
    trace: Callable[[Path], TracedGraph]
    trained: nn.Module


def graph_names(parts: GraphParts) -> tuple[str, ...]:
    return (
        "video",
        "text",
        *(("rerank",) if parts.rerank else ()),
        *(("frames", "temporal") if parts.split_video else ()),
    )


def trace_fp32(
    model: RetrievalModel, parts: GraphParts, opset: int, folder: Path
) -> Iterator[tuple[TracedGraph, BuiltGraph]]:
    """Trace every graph into `folder`, one after the other; each agrees with PyTorch and holds its operators in one
    piece, or GateError."""
    for source in graph_sources(model, parts, opset):
        traced = source.trace(folder / f"{source.name}.onnx")
        spec = describe_graph(traced)
        difference = compare_graph(traced, source.trained, model.config.text)
        fusion = Fusion(traced.path.name, expected_in(source.trained, spec, model.config), find_operators(traced.path))
        fusion.check()
        built = BuiltGraph(
            source.name,
            spec,
            tuple(traced.files),
            _megabytes(traced.files),
            count_nodes(traced.path),
            difference=difference,
            fusion=fusion,
            trained=source.trained,
        )
        yield traced, built


def lower_graph(
    traced: TracedGraph, built: BuiltGraph, plan: GraphPlan, target: Path, *, islands: Islands | None, feeds: Feeds
) -> BuiltGraph:
    """Write the fp32 graph in the bundle's precision as `target`. `feeds` calibrates int8, by graph."""
    apart = traced.external_data is not None
    precision = precision_of_graph(built.name, plan.graph_precision)
    if precision == "int8":
        notes, any_low = [quantize_graph(traced.path, target, feeds[built.name], external=apart).line()], True
    elif precision != "fp32":
        report = lower_precision(
            traced.path,
            target,
            precision=precision,
            islands=islands,
            external=apart,
            fp32_softmax=plan.fp32_softmax,
        )
        notes, any_low = report.lines(), report.products_low > 0
    else:
        for file in traced.files:
            file.rename(target.with_name(file.name))
        hint = plan.precision != plan.graph_precision
        spec = built.spec.model_copy(update={"precise": precise_nodes(target) if hint else ()})
        return replace(built, spec=spec, files=tuple(target.with_name(file.name) for file in traced.files))
    data = target.with_name(f"{target.name}.data") if apart else None
    lowered = replace(traced, path=target, external_data=data)
    # Q/DQ lies between a product and what follows: the patterns are the fp32 graph's, which was counted.
    found = built.fusion.found if precision == "int8" else find_operators(target)
    fusion = Fusion(target.name, built.fusion.expected, found)
    fusion.check()
    if built.name in UNGATED and precision in COSINE_LOSS:
        lost = cosine_loss(target, built.trained, built.spec)
        notes.append(f"1 - cosine {lost:.2g}")
        if not lost <= COSINE_LOSS[precision]:
            raise GateError(
                f"{target.name} in {precision} differs from PyTorch by 1 - cosine {lost:.3g}; the limit is "
                f"{COSINE_LOSS[precision]:g}; find what must stay in fp32 with --search-islands"
            )
    return replace(
        built,
        spec=describe_graph(lowered),
        files=tuple(lowered.files),
        megabytes=_megabytes(lowered.files),
        nodes=count_nodes(target),
        fusion=fusion,
        notes=tuple(notes),
        lowered=any_low,
    )


def cosine_loss(path: Path, trained: nn.Module, spec: GraphSpec) -> float:
    """The largest 1 - cosine between the first output of a typed graph, run as its types say, and the trained module's;
    NaN where one is not finite."""
    text = TextSpec()  # no graph that is asked here takes tokens
    feed = draw_inputs(np.random.default_rng(0), spec.inputs, 3, 0, text)
    with torch.inference_mode():
        given = trained(*(torch.from_numpy(feed[tensor.name]) for tensor in spec.inputs))
    want = (given[0] if isinstance(given, tuple) else given).double()
    got = torch.from_numpy(TypedGraph(path)(feed)[spec.outputs[0].name]).double()
    return float((1.0 - torch.cosine_similarity(want, got)).max())


def precise_nodes(path: Path) -> tuple[str, ...]:
    """The nodes of an fp32 graph that an engine with a lower precision as its hint must leave in fp32."""
    rules = Islands(HINT_RULES)
    graph = ir.load(path).graph
    names = module_names(graph, root_of(path))
    return tuple(node.name or "" for node in graph if rules.rule_for(node.op_type, names[node]) is not None)


def collect(built: Sequence[BuiltGraph]) -> Graphs:
    return Graphs(**{graph.name: graph.spec for graph in built})


def graph_sources(model: RetrievalModel, parts: GraphParts, opset: int) -> Iterator[GraphSource]:
    """Every graph of a bundle with `parts`, none traced yet: each takes the weights of `model` as they are now."""
    config = model.config
    words = parts.rerank and config.rerank.over_words
    video = prune_video_tower(fold_video_tower(model.video))
    text = prune_text_tower(fold_text_tower(model.text), words=words)
    debug, reranker = parts.debug_outputs, model.rerank if parts.rerank else None
    frames = reranker is not None

    yield GraphSource(
        "video",
        lambda path: trace_video(video, config, path, opset=opset, debug_outputs=debug, frame_embeddings=frames),
        model.video,
    )
    yield GraphSource(
        "text", lambda path: trace_text(text, config, path, opset=opset, debug_outputs=debug, words=words), model.text
    )
    if reranker is not None:
        trained = RerankGraph(reranker, config.rerank)
        yield GraphSource("rerank", lambda path: trace_rerank(reranker, config, path, opset=opset), trained)
    if parts.split_video:
        yield GraphSource(
            "frames", lambda path: trace_frame_encoder(video, config, path, opset=opset), FrameGraph(model.video)
        )
        yield GraphSource(
            "temporal",
            lambda path: trace_temporal_head(video, config, path, opset=opset, frame_embeddings=frames),
            TemporalGraph(model.video, ()),
        )


def _megabytes(files: Sequence[Path]) -> float:
    return sum(file.stat().st_size for file in files) / 1e6


def expected_in(trained: nn.Module, spec: GraphSpec, config: ModelConfig) -> dict[str, int]:
    """What a trained module calls of the operators that fusion.py counts, for inputs as the graph's."""
    feed = draw_inputs(np.random.default_rng(0), spec.inputs, 1, 3, config.text)
    return expected_operators(trained, *(torch.from_numpy(feed[tensor.name]) for tensor in spec.inputs))
