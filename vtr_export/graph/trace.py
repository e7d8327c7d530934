"""PyTorch tower -> ONNX file, by torch's dynamo exporter."""

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

from ..model.config import ModelConfig
from ..model.text_tower import TextTower
from ..model.video_tower import VideoTower

# Above this many bytes of weights they go into one file beside the graph: protobuf stops at 2 GB.
EXTERNAL_DATA_BYTES = 1_500_000_000
# The batch and the length that the tracer sees must be neither 1 (it would be taken for a constant) nor equal to any
# other size in the model, so that no axis can be mistaken for another.
TRACE_BATCH, TRACE_TOKENS = 3, 11
BATCH = Dim("batch", min=1)


@dataclass(frozen=True)
class TracedGraph:
    """An ONNX file and what it ought to look like."""

    path: Path
    external_data: Path | None
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    dynamic_axes: dict[str, dict[int, str]]

    @property
    def files(self) -> list[Path]:
        return [file for file in (self.path, self.external_data) if file is not None]


class _Stages(nn.Module):
    """Gives `embedding` and, when asked, the inner stages as further outputs."""

    def __init__(self, tower: VideoTower | TextTower, final: str, inner: tuple[str, ...]) -> None:
        super().__init__()
        self.tower = tower
        self.final = final
        self.inner = inner

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        stages = self.tower.stages(*inputs)
        return (stages[self.final], *(stages[name] for name in self.inner))


def trace_video(tower: VideoTower, config: ModelConfig, path: Path, *, opset: int, debug_outputs: bool) -> TracedGraph:
    """Trace frames uint8 [batch, T, S, S, 3] and mask bool [batch, T] -> embedding float32 [batch, D]."""
    spec = config.frames
    generator = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (TRACE_BATCH, spec.count, spec.size, spec.size, 3), generator=generator)
    mask = torch.ones(TRACE_BATCH, spec.count, dtype=torch.bool)
    mask[0, spec.count // 2 + 1 :] = False
    inputs = {"frames": frames.to(torch.uint8), "frame_mask": mask}
    axes = {"frames": {0: BATCH}, "frame_mask": {0: BATCH}}
    inner = tower.inner_stages if debug_outputs else ()
    return _trace(_Stages(tower, "video_embedding", inner), inputs, axes, path, opset)


def trace_text(tower: TextTower, config: ModelConfig, path: Path, *, opset: int, debug_outputs: bool) -> TracedGraph:
    """Trace ids int32 [batch, tokens] -> embedding float32 [batch, D], the sampler's steps unrolled."""
    spec = config.text
    ids = torch.full((TRACE_BATCH, TRACE_TOKENS), spec.end_id, dtype=torch.int32)
    ids[:, 0] = spec.start_id
    inner = tower.inner_stages if debug_outputs else ()
    tokens = Dim("tokens", min=2, max=spec.context_length)
    axes = {"input_ids": {0: BATCH, 1: tokens}}
    return _trace(_Stages(tower, "aligned", inner), {"input_ids": ids}, axes, path, opset)


def _trace(
    module: _Stages, inputs: dict[str, Tensor], axes: dict[str, dict[int, Dim]], path: Path, opset: int
) -> TracedGraph:
    module.eval()
    names = ("embedding", *module.inner)
    with _quiet():
        program = torch.onnx.export(
            module,
            tuple(inputs.values()),
            input_names=list(inputs),
            output_names=list(names),
            dynamic_shapes=(tuple(axes[name] for name in inputs),),
            opset_version=opset,
            dynamo=True,
            optimize=True,
            verbose=False,
        )
    assert program is not None  # dynamo=True always gives a program
    _free_names(program, names)
    apart = _weight_bytes(module) > EXTERNAL_DATA_BYTES
    program.save(path, external_data=apart)
    data = path.with_name(path.name + ".data") if apart else None
    labels = {name: {axis: dim.__name__ for axis, dim in dims.items()} for name, dims in axes.items()}
    return TracedGraph(path, data, tuple(inputs), names, labels)


def _free_names(program: torch.onnx.ONNXProgram, names: tuple[str, ...]) -> None:
    """The exporter calls values after their operators (`embedding`) without looking whether an output has the name."""
    outputs = set(program.model.graph.outputs)
    for node in program.model.graph:
        for value in node.outputs:
            if value.name in names and value not in outputs:
                value.name = f"{value.name}_inner"


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
