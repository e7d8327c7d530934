"""The order of an export: load, trace, check, golden vectors, manifest, gates, publish."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from vtr_runtime.bundle import TOKENIZER
from vtr_runtime.manifest import Graphs, Manifest
from vtr_runtime.publish import staged_folder
from vtr_runtime.text import Tokenizer

from .bundle_writer import library_versions, write_manifest, write_readme
from .gates import run_gates
from .golden import write_golden
from .graph.check import compare_with_torch, count_nodes, describe_graph
from .graph.fold import fold_text_tower
from .graph.trace import TracedGraph, trace_text, trace_video
from .model.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from .model.stock import from_open_clip
from .plan import ExportPlan
from .tokenizer import write_tokenizer

STEPS = 7


@dataclass(frozen=True)
class GraphResult:
    file: str
    megabytes: float
    nodes: int
    difference: float


@dataclass(frozen=True)
class ExportResult:
    output: Path
    manifest: Manifest
    graphs: tuple[GraphResult, ...]
    verdict: str
    seconds: float


def export(plan: ExportPlan, *, say: Callable[[str], None] = lambda _: None) -> ExportResult:
    """Carry a plan out. `say` is told each step.

    Raises UsageError before anything begins, CheckpointError or ConfigError for a model that cannot be exported, and
    GateError when the graphs are not the model: then nothing is published and the report lies at `<output>.failed/`."""
    plan.check()
    start = time.monotonic()

    def step(number: int, text: str) -> None:
        say(f"[{number}/{STEPS}] {text} ({time.monotonic() - start:.0f} s)")

    with TemporaryDirectory() as scratch, staged_folder(plan.output, overwrite=plan.overwrite) as folder:
        step(1, "load the model")
        path, checkpoint = _load(plan, Path(scratch))
        model, config = checkpoint.model.eval(), checkpoint.config
        step(2, f"video tower: trace to ONNX opset {plan.opset}")
        video = trace_video(
            model.video, config, folder / "video.onnx", opset=plan.opset, debug_outputs=plan.debug_outputs
        )
        step(3, f"text tower: trace to ONNX opset {plan.opset}, sampler {config.alignment.kind}")
        folded = fold_text_tower(model.text)
        text = trace_text(folded, config, folder / "text.onnx", opset=plan.opset, debug_outputs=plan.debug_outputs)
        step(4, "check both graphs, and run them against PyTorch")
        graphs = Graphs(video=describe_graph(video), text=describe_graph(text))
        # The text graph is held to the trained tower, not to the folded one that was traced.
        differences = [
            compare_with_torch(video, model.video, config.frames, config.text),
            compare_with_torch(text, model.text, config.frames, config.text),
        ]
        step(5, "tokenizer and golden vectors")
        write_tokenizer(folder / TOKENIZER, context_length=config.text.context_length, cleaning=config.text.cleaning)
        made_by = {**library_versions(), "weights_sha256": checkpoint.weights_sha256}
        tokenizer = Tokenizer.from_file(folder / TOKENIZER, config.text)
        golden = write_golden(model, tokenizer, folder / "golden", made_by=made_by)
        core = [TOKENIZER, *(f"golden/{name}" for name in golden)]
        for graph in (video, text):
            core += [file.name for file in graph.files]
        manifest = write_manifest(
            folder,
            config=config,
            weights_sha256=checkpoint.weights_sha256,
            graphs=graphs,
            opset=plan.opset,
            settings=plan.settings,
            core_files=core,
        )
        step(6, "gates: conformance in a process of its own")
        failed = plan.output.with_name(plan.output.name + ".failed")
        verdict = run_gates(folder, path, data=plan.eval_data, failed=failed, say=say)
        step(7, f"publish {plan.output}")
        write_readme(folder, manifest, verdict)
        results = tuple(_result(graph, worst) for graph, worst in zip((video, text), differences, strict=True))
    return ExportResult(plan.output, manifest, results, verdict, time.monotonic() - start)


def _load(plan: ExportPlan, scratch: Path) -> tuple[Path, Checkpoint]:
    """The checkpoint and where it lies; stock CLIP becomes one, so that the gates read it like any other."""
    if plan.checkpoint is not None:
        return plan.checkpoint, load_checkpoint(plan.checkpoint)
    assert plan.open_clip is not None  # ExportPlan.check
    path = scratch / "stock.pt"
    save_checkpoint(path, from_open_clip(plan.open_clip, pretrained=plan.pretrained))
    return path, load_checkpoint(path)


def _result(graph: TracedGraph, difference: float) -> GraphResult:
    size = sum(file.stat().st_size for file in graph.files) / 1e6
    return GraphResult(graph.path.name, size, count_nodes(graph.path), difference)
