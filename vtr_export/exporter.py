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

from .bundle_writer import left_out, library_versions, write_manifest, write_readme
from .gates import run_gates
from .golden import write_golden
from .graph.check import compare_with_torch, count_nodes, describe_graph
from .graph.fold import fold_text_tower, fold_video_tower
from .graph.trace import TracedGraph, trace_text, trace_video
from .model.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from .model.dits import without_evaluation_noise
from .model.stock import from_open_clip
from .plan import ExportPlan, check_model
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
    """Carry a plan out. `say` is told each step, and what of the model the bundle leaves out.

    Raises UsageError before anything begins, CheckpointError or ConfigError for a model that cannot be exported, and
    GateError when the graphs are not the model: then nothing is published and the report lies at `<output>.failed/`."""
    plan.check()
    start = time.monotonic()

    def step(number: int, text: str) -> None:
        say(f"[{number}/{STEPS}] {text} ({time.monotonic() - start:.0f} s)")

    with TemporaryDirectory() as scratch:
        step(1, "load the model")
        path, checkpoint = _load(plan, Path(scratch))
        check_model(checkpoint.config)
        for line in left_out(checkpoint.config):
            say(line)
        with staged_folder(plan.output, overwrite=plan.overwrite) as folder:
            manifest, graphs = _write_core(folder, plan, checkpoint, step)
            step(6, "gates: conformance in a process of its own")
            failed = plan.output.with_name(plan.output.name + ".failed")
            verdict = run_gates(folder, path, data=plan.eval_data, failed=failed, say=say)
            step(7, f"publish {plan.output}")
            write_readme(folder, manifest, verdict)
    return ExportResult(plan.output, manifest, graphs, verdict, time.monotonic() - start)


def _write_core(
    folder: Path, plan: ExportPlan, checkpoint: Checkpoint, step: Callable[[int, str], None]
) -> tuple[Manifest, tuple[GraphResult, ...]]:
    """Steps 2 to 5: everything that the manifest hashes, and the manifest."""
    model, config = checkpoint.model.eval(), checkpoint.config
    without_evaluation_noise(model)
    step(2, f"video tower: trace to ONNX opset {plan.opset}")
    video = trace_video(
        fold_video_tower(model.video), config, folder / "video.onnx", opset=plan.opset, debug_outputs=plan.debug_outputs
    )
    step(3, f"text tower: trace to ONNX opset {plan.opset}, alignment {config.alignment.kind}")
    text = trace_text(
        fold_text_tower(model.text), config, folder / "text.onnx", opset=plan.opset, debug_outputs=plan.debug_outputs
    )
    step(4, "check both graphs, and run them against PyTorch")
    graphs = Graphs(video=describe_graph(video), text=describe_graph(text))
    # The graphs are held to the trained towers, not to the folded ones that were traced.
    results = (
        _result(video, compare_with_torch(video, model.video, config.frames, config.text)),
        _result(text, compare_with_torch(text, model.text, config.frames, config.text)),
    )
    step(5, "tokenizer and golden vectors")
    write_tokenizer(folder / TOKENIZER, context_length=config.text.context_length, cleaning=config.text.cleaning)
    made_by = {**library_versions(), "weights_sha256": checkpoint.weights_sha256}
    golden = write_golden(
        model, Tokenizer.from_file(folder / TOKENIZER, config.text), folder / "golden", made_by=made_by
    )
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
    return manifest, results


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
