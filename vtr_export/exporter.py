"""The order of an export: load, trace, lower, golden vectors, manifest, engines, gates, publish."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from vtr_runtime.bundle import TOKENIZER
from vtr_runtime.manifest import Manifest
from vtr_runtime.publish import staged_folder
from vtr_runtime.targets import TARGETS
from vtr_runtime.text import Tokenizer

from .bundle_writer import left_out, write_manifest, write_readme
from .engines import MadeEngine, make_engine
from .gates import GateResult, run_gates
from .golden import write_golden
from .graphs import BuiltGraph, Feeds, GraphParts, collect, graph_names, lower_graph, trace_fp32
from .model.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from .model.dits import without_evaluation_noise
from .model.foreign import open_any_checkpoint, read_own_checkpoint
from .model.stock import from_open_clip
from .plan import ExportPlan, check_model
from .precision.calibration import read_calibration
from .precision.islands import Islands
from .precision.search import find_islands
from .reproduce import write_scripts
from .tokenizer import write_tokenizer

Say = Callable[[str], None]


@dataclass(frozen=True)
class ExportResult:
    """`engines` are those beside the graphs; a target that could not be made here says why in `undone`."""

    output: Path
    manifest: Manifest
    graphs: tuple[BuiltGraph, ...]
    engines: tuple[MadeEngine, ...]
    gates: GateResult
    seconds: float

    @property
    def undone(self) -> tuple[str, ...]:
        return tuple(engine.undone for engine in self.engines if engine.undone)


@dataclass
class Steps:
    """Says each step when it begins, and what came of it when it ends."""

    total: int
    say: Say
    done: int = 0
    results: list[str] = field(default_factory=list)

    @contextmanager
    def step(self, text: str) -> Iterator[None]:
        self.done += 1
        self.results = []
        self.say(f"[{self.done}/{self.total}] {text}")
        begun = time.monotonic()
        yield
        self.say("      ... " + ", ".join([f"{time.monotonic() - begun:.0f} s", *self.results]))

    def result(self, text: str) -> None:
        """What a step came to, said at its end."""
        self.results.append(text)


def export(plan: ExportPlan, *, say: Say = lambda _: None) -> ExportResult:
    """Carry a plan out. `say` is told each step, and what of the model the bundle leaves out.

    Raises UsageError before anything begins, CheckpointError or ConfigError for a model that cannot be exported, and
    GateError when the graphs are not the model: then nothing is published and the report lies at `<output>.failed/`."""
    plan.check()
    start = time.monotonic()
    engines = [name for name in plan.targets if TARGETS[name].engine or name == "triton"]
    parts = GraphParts(plan.debug_outputs, plan.rerank, plan.split_video)
    extra = int(plan.search_islands) + int(plan.graphs.graph_precision == "int8")
    steps = Steps(5 + len(graph_names(parts)) + extra + len(engines), say)
    with TemporaryDirectory() as scratch:
        with steps.step("load the model"):
            path, checkpoint = _load(plan, Path(scratch), say)
        check_model(checkpoint.config, plan)
        for line in left_out(checkpoint.config, rerank=plan.rerank):
            say(line)
        with staged_folder(plan.output, overwrite=plan.overwrite) as folder:
            manifest, graphs = write_core(folder, plan, parts, checkpoint, steps)
            made = []
            for name in engines:
                with steps.step(f"{TARGETS[name].title}: build {manifest.precision}"):
                    made.append(make_engine(name, folder, plan, graphs, say))
                    steps.result(made[-1].undone or made[-1].summary)
            with steps.step("gates: conformance in a process of its own"):
                failed = plan.output.with_name(plan.output.name + ".failed")
                backends = _gate_backends(plan, made)
                batch = plan.engine.get("batch")
                gates = run_gates(
                    folder, path, data=plan.eval_data, failed=failed, backends=backends, batch=batch, say=say
                )
            with steps.step(f"publish {plan.output}"):
                write_scripts(folder / "reports", plan, backends, own_checkpoint=path == plan.checkpoint)
                write_readme(folder, manifest, gates.line, [engine.summary for engine in made])
    return ExportResult(plan.output, manifest, tuple(graphs), tuple(made), gates, time.monotonic() - start)


def write_core(
    folder: Path, plan: ExportPlan, parts: GraphParts, checkpoint: Checkpoint, steps: Steps
) -> tuple[Manifest, list[BuiltGraph]]:
    """Everything that the manifest hashes, and the manifest."""
    model, config = checkpoint.model.eval(), checkpoint.config
    without_evaluation_noise(model)
    write_tokenizer(folder / TOKENIZER, context_length=config.text.context_length, cleaning=config.text.cleaning)
    tokenizer = Tokenizer.from_file(folder / TOKENIZER, config.text)
    graphs, islands = _write_graphs(folder, plan, parts, checkpoint, tokenizer, steps)
    with steps.step("golden vectors"):
        golden = write_golden(
            model, tokenizer, folder / "golden", weights_sha256=checkpoint.weights_sha256, rerank=parts.rerank
        )
    manifest = write_manifest(
        folder,
        config=config,
        weights_sha256=checkpoint.weights_sha256,
        graphs=collect(graphs),
        plan=plan.graphs,
        islands=islands.rules if islands else (),
        settings=plan.settings,
        core_files=[
            TOKENIZER,
            *(f"golden/{name}" for name in golden),
            *(file.name for graph in graphs for file in graph.files),
        ],
    )
    return manifest, graphs


def _write_graphs(
    folder: Path, plan: ExportPlan, parts: GraphParts, checkpoint: Checkpoint, tokenizer: Tokenizer, steps: Steps
) -> tuple[list[BuiltGraph], Islands | None]:
    """Trace every graph in fp32 and hold it to PyTorch, then write all of them in the bundle's precision."""
    wanted = plan.graphs
    raw = folder / ".fp32"
    raw.mkdir()
    traced = []
    sources = trace_fp32(checkpoint.model, parts, wanted.opset, raw)
    for name in graph_names(parts):
        with steps.step(f"{name}: trace to ONNX opset {wanted.opset}, hold to PyTorch"):
            graph, built = next(sources)
            traced.append((graph, built))
            steps.result(f"{built.nodes} nodes, max difference {built.difference:.2g}")
            steps.result(built.fusion.summary or "nothing to fuse")
    feeds = _calibration_feeds(plan, checkpoint, tokenizer, steps)
    islands = _islands(plan, raw, feeds, steps)
    with steps.step(f"write the graphs in {wanted.graph_precision}"):
        graphs = [
            lower_graph(graph, built, wanted, folder / graph.path.name, islands=islands, feeds=feeds)
            for graph, built in traced
        ]
        for built in graphs:
            steps.result("; ".join([f"{built.name} {built.megabytes:.1f} MB", *built.notes]))
    shutil.rmtree(raw)
    return graphs, islands


def _calibration_feeds(plan: ExportPlan, checkpoint: Checkpoint, tokenizer: Tokenizer, steps: Steps) -> Feeds:
    if not (plan.search_islands or plan.graphs.graph_precision == "int8"):
        return {}
    found = read_calibration(plan.calibration, checkpoint.config.frames, tokenizer)
    steps.say(f"calibration: {len(found.video)} clips, {len(found.text)} captions")
    frames = [{"frames": feed["frames"][0]} for feed in found.video]
    return {"video": found.video, "text": found.text, "frames": frames}


def _islands(plan: ExportPlan, raw: Path, feeds: Feeds, steps: Steps) -> Islands | None:
    """The modules kept in fp32 by a graph of fp16 or bf16; a list that was given or found lies in the reports."""
    precision = plan.graphs.graph_precision
    if precision not in ("fp16", "bf16"):
        return None
    reports = raw.parent / "reports"
    if plan.islands is not None:
        given = Islands.load(plan.islands)
        reports.mkdir()
        given.save(reports / "islands.json")
        return given
    if not plan.search_islands:
        return Islands()
    with steps.step(f"search the modules that {precision} must leave in fp32"):
        graphs = {name: raw / f"{name}.onnx" for name in ("video", "text")}
        towers = {name: feeds[name] for name in graphs}
        found = find_islands(graphs, towers, precision=precision, say=steps.say)
        reports.mkdir()
        found.islands.save(reports / "islands.json")
        (reports / "islands.txt").write_text(found.table() + "\n", encoding="utf-8")
        steps.result(f"{found.runs} runs, {len(found.islands.rules)} rules in reports/islands.json")
    return found.islands


def _gate_backends(plan: ExportPlan, made: Sequence[MadeEngine]) -> tuple[str, ...]:
    """What the gates run on: OpenVINO where its engine is part of the bundle, and ONNX Runtime or the typed executor,
    as conformance chooses, where the graphs themselves are."""
    if not any(engine.target == "openvino" and not engine.undone for engine in made):
        return ()
    hint_only = plan.graphs.precision != plan.graphs.graph_precision
    return ("openvino",) if hint_only else ("openvino", "onnx-cpu")


def _load(plan: ExportPlan, scratch: Path, say: Say) -> tuple[Path, Checkpoint]:
    """The checkpoint and where it lies; what vtr-train did not write becomes one, so that the gates read it alike."""
    if plan.checkpoint is not None:
        own = read_own_checkpoint(plan.checkpoint)
        if own is not None:
            return plan.checkpoint, own
        model, description = open_any_checkpoint(plan.checkpoint, frames=plan.frames, sampling=plan.sampling)
        say(f"{plan.checkpoint}: {description}")
    else:
        assert plan.open_clip is not None  # ExportPlan.check
        model = from_open_clip(plan.open_clip, pretrained=plan.pretrained, frames=plan.frames, sampling=plan.sampling)
    path = scratch / "model.pt"
    save_checkpoint(path, model)
    return path, load_checkpoint(path)
