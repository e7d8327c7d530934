"""PyTorch module -> ONNX file, by torch's dynamo exporter."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim

from ..model.attention import attention_operator
from ..model.config import ModelConfig
from ..model.rerank import Reranker
from ..model.text_tower import TextTower
from ..model.video_tower import VideoTower
from .module_names import MODULE, module_names, root_of
from .modules import FrameGraph, RerankGraph, TemporalGraph, TextGraph, VideoGraph

# Above this many bytes of weights they go into one file beside the graph: protobuf stops at 2 GB.
EXTERNAL_DATA_BYTES = 1_500_000_000
# From this opset on ONNX has the operator `Attention`.
ATTENTION_OPSET = 23
# The sizes that the tracer sees must be neither 1 (it would be taken for a constant) nor equal to any other size in the
# model, so that no axis can be mistaken for another.
TRACE_BATCH, TRACE_TOKENS, TRACE_CANDIDATES = 3, 11, 5
BATCH = Dim("batch", min=1)
CANDIDATES = Dim("candidates", min=1)

Axes = dict[str, dict[int, str]]


@dataclass(frozen=True)
class TracedGraph:
    """An ONNX file and what it ought to look like; `dynamic_axes` names those of inputs and outputs."""

    path: Path
    external_data: Path | None
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    dynamic_axes: Axes

    @property
    def files(self) -> list[Path]:
        return [file for file in (self.path, self.external_data) if file is not None]


def trace_video(
    tower: VideoTower,
    config: ModelConfig,
    path: Path,
    *,
    opset: int,
    debug_outputs: bool = False,
    frame_embeddings: bool = False,
) -> TracedGraph:
    """Trace frames uint8 [batch, T, S, S, 3] and mask bool [batch, T] -> embedding float32 [batch, D].

    Further outputs: `frame_embeddings` [batch, T, D] where asked for, every inner stage with `debug_outputs`."""
    spec = config.frames
    frames = _frames(TRACE_BATCH, spec.count, spec.size)
    inner = tower.inner_stages if debug_outputs else ("frame_embeddings",) if frame_embeddings else ()
    graph = VideoGraph(tower, inner)
    inputs = {"frames": frames, "frame_mask": _mask(spec.count)}
    outputs: Axes = {name: {0: "batch"} for name in graph.output_names}
    return _trace(graph, inputs, {"frames": {0: BATCH}, "frame_mask": {0: BATCH}}, outputs, path, opset)


def trace_text(
    tower: TextTower, config: ModelConfig, path: Path, *, opset: int, debug_outputs: bool = False, words: bool = False
) -> TracedGraph:
    """Trace ids int32 [batch, tokens] -> embedding float32 [batch, D], the sampler's steps unrolled.

    With `words` also `word_embeddings` [batch, tokens, D] and `word_mask` bool [batch, tokens]."""
    spec = config.text
    ids = torch.full((TRACE_BATCH, TRACE_TOKENS), spec.end_id, dtype=torch.int32)
    ids[:, 0] = spec.start_id
    graph = TextGraph(tower, tower.inner_stages if debug_outputs else (), words=words)
    tokens = Dim("tokens", min=2, max=spec.context_length)
    per_word = ("word_embeddings", "word_mask")
    outputs: Axes = {
        name: {0: "batch", 1: "tokens"} if name in per_word else {0: "batch"} for name in graph.output_names
    }
    return _trace(graph, {"input_ids": ids}, {"input_ids": {0: BATCH, 1: tokens}}, outputs, path, opset)


def trace_rerank(reranker: Reranker, config: ModelConfig, path: Path, *, opset: int) -> TracedGraph:
    """Trace the second stage of one query: its `embedding` [D] and, for a score over words, `word_embeddings`
    [tokens, D], `word_mask` bool [tokens] and `word_weights` [tokens] where some words matter more; `frame_embeddings`
    [candidates, T, D] and `frame_mask` bool [candidates, T] -> `scores` [candidates]."""
    dim, count = config.backbone.embed_dim, config.frames.count
    tokens = Dim("tokens", min=2, max=config.text.context_length)
    graph = RerankGraph(reranker, config.rerank)
    generator = torch.Generator().manual_seed(0)
    words = torch.ones(TRACE_TOKENS)
    frame_mask = torch.ones(TRACE_CANDIDATES, count, dtype=torch.bool)
    frame_mask[0, count // 2 + 1 :] = False
    every = {
        "embedding": torch.randn(dim, generator=generator),
        "word_embeddings": torch.randn(TRACE_TOKENS, dim, generator=generator),
        "word_mask": words > 0,
        "word_weights": words,
        "frame_embeddings": torch.randn(TRACE_CANDIDATES, count, dim, generator=generator),
        "frame_mask": frame_mask,
    }
    inputs = {name: every[name] for name in graph.input_names}
    axes: dict[str, dict[int, Dim]] = {name: {0: tokens} if "word" in name else {0: CANDIDATES} for name in inputs}
    return _trace(graph, inputs, axes | {"embedding": {}}, {"scores": {0: "candidates"}}, path, opset)


def trace_frame_encoder(tower: VideoTower, config: ModelConfig, path: Path, *, opset: int) -> TracedGraph:
    """Trace the first half of the video tower: frames uint8 [batch, S, S, 3] -> features float32 [batch, D]."""
    frames = _frames(TRACE_BATCH, 1, config.frames.size)[:, 0]
    return _trace(
        FrameGraph(tower), {"frames": frames}, {"frames": {0: BATCH}}, {"features": {0: "batch"}}, path, opset
    )


def trace_temporal_head(
    tower: VideoTower, config: ModelConfig, path: Path, *, opset: int, frame_embeddings: bool = False
) -> TracedGraph:
    """Trace the second half: features float32 [batch, T, D] and mask bool [batch, T] -> what `trace_video` gives."""
    spec, dim = config.frames, config.backbone.embed_dim
    graph = TemporalGraph(tower, ("frame_embeddings",) if frame_embeddings else ())
    features = torch.randn(TRACE_BATCH, spec.count, dim, generator=torch.Generator().manual_seed(0))
    inputs = {"features": features, "frame_mask": _mask(spec.count)}
    outputs: Axes = {name: {0: "batch"} for name in graph.output_names}
    return _trace(graph, inputs, {"features": {0: BATCH}, "frame_mask": {0: BATCH}}, outputs, path, opset)


def _frames(batch: int, count: int, size: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (batch, count, size, size, 3), generator=generator).to(torch.uint8)


def _mask(count: int) -> Tensor:
    mask = torch.ones(TRACE_BATCH, count, dtype=torch.bool)
    mask[0, count // 2 + 1 :] = False
    return mask


def _trace(
    module: nn.Module,
    inputs: dict[str, Tensor],
    axes: dict[str, dict[int, Dim]],
    outputs: Axes,
    path: Path,
    opset: int,
) -> TracedGraph:
    module.eval()
    fused = attention_operator() if opset >= ATTENTION_OPSET else contextlib.nullcontext()
    with _quiet(), fused:
        program = torch.onnx.export(
            module,
            tuple(inputs.values()),
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes=(tuple(axes[name] for name in inputs),),
            opset_version=opset,
            dynamo=True,
            optimize=True,
            verbose=False,
        )
    assert program is not None  # dynamo=True always gives a program
    _free_names(program, tuple(outputs))
    _keep_module_names(program, root_of(path))
    apart = _weight_bytes(module) > EXTERNAL_DATA_BYTES
    program.save(path, external_data=apart)
    data = path.with_name(path.name + ".data") if apart else None
    labels: Axes = {name: {axis: dim.__name__ for axis, dim in dims.items()} for name, dims in axes.items()}
    return TracedGraph(path, data, tuple(inputs), tuple(outputs), labels | outputs)


def _free_names(program: torch.onnx.ONNXProgram, names: tuple[str, ...]) -> None:
    """The exporter calls values after their operators (`embedding`) without looking whether an output has the name."""
    outputs = set(program.model.graph.outputs)
    for node in program.model.graph:
        for value in node.outputs:
            if value.name in names and value not in outputs:
                value.name = f"{value.name}_inner"


def _keep_module_names(program: torch.onnx.ONNXProgram, root: str) -> None:
    """Of what the exporter notes down the module stays; its stack traces hold this machine's paths."""
    graph = program.model.graph
    names = module_names(graph, root)
    for node in graph:
        node.metadata_props.clear()
        node.metadata_props[MODULE] = names[node]
        for value in node.outputs:
            value.metadata_props.clear()
    for value in (*graph.inputs, *graph.initializers.values()):
        value.metadata_props.clear()
    graph.metadata_props.clear()
    program.model.metadata_props.clear()


def _weight_bytes(module: nn.Module) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in module.state_dict().values())


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter narrates; what matters is checked afterwards, on the graph itself."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
