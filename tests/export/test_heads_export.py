"""Every temporal head with every alignment head: exported and held to PyTorch by conformance, or refused by name."""

from __future__ import annotations

import functools
import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from vtr_conformance.report import write_report
from vtr_conformance.run import run
from vtr_export import ExportPlan, export, exporter, golden, graphs
from vtr_export.bundle_writer import left_out
from vtr_export.gates import GateResult
from vtr_export.graph.trace import TracedGraph
from vtr_export.model import (
    AlignmentConfig,
    BackboneConfig,
    ModelConfig,
    RetrievalModel,
    TemporalConfig,
    TextTower,
    VideoTower,
    redraw_zero_parameters,
    save_checkpoint,
)
from vtr_export.model.config import RerankConfig
from vtr_export.model.dits import without_evaluation_noise
from vtr_export.plan import check_model
from vtr_runtime.bundle import open_bundle
from vtr_runtime.errors import ConfigError

BACKBONE = {
    "embed_dim": 64,
    "vision_cfg": {"image_size": 16, "patch_size": 8, "layers": 1, "width": 32, "head_width": 16},
    "text_cfg": {"width": 32, "heads": 2, "layers": 1},
}
BLOCKS: dict[str, Any] = {"heads": 2, "mlp_ratio": 2.0, "position_init": "normal", "init": "random"}
MSTDT = {"kind": "mstdt", **BLOCKS, "scales": (3, 5)}  # neither divides the 8 frames
TEMPORAL: dict[str, dict[str, Any]] = {
    "mean": {"kind": "mean"},
    "lstm": {"kind": "lstm"},
    "transformer": {"kind": "transformer", **BLOCKS, "layers": 1},
    "mstdt A": MSTDT,
    "mstdt B": {**MSTDT, "variant": "B", "short_layers": 1, "long_layers": 1},
    "mstdt C": {**MSTDT, "variant": "C", "long_layers": 1},
    "mstdt interleaved": {**MSTDT, "merge": "interleave", "difference": "cross-boundary", "stride": 2},
}
STEPS = 2
DITS = {"kind": "dits", "steps": STEPS, "blocks": 1, "heads": 2}
ALIGNMENT: dict[str, dict[str, Any]] = {
    "none": {"kind": "none"},
    "dits": DITS,
    "dits with noise": {**DITS, "noise": "sqrt-beta", "eval_noise": "sqrt-beta"},
    "dits condition text": {**DITS, "condition": "text"},
    "dits gap t-v": {**DITS, "gap": "t-v"},
    "mlp": {"kind": "mlp", "blocks": 1},
    "fixed-prior": {"kind": "fixed-prior"},
    "diffusion": {**DITS, "kind": "diffusion"},
}
SUMMARY = {
    "none": "none",
    "dits": "dits behind the text tower, 2 steps, no noise",
    "dits with noise": "dits behind the text tower, 2 steps, without the noise of training and evaluation",
    "dits condition text": "dits behind the text tower, 2 steps, condition text, no noise",
    "dits gap t-v": "dits behind the video tower, 2 steps, no noise",
    "mlp": "mlp behind the text tower",
}
IN_A_CHILD = {("transformer", "dits gap t-v"), ("mstdt A", "dits with noise")}


def build(temporal: str, alignment: str) -> Any:
    """Towers that are configured alike are alike, whatever the other tower is."""
    parts = {
        "temporal": TemporalConfig(**TEMPORAL[temporal]),
        "alignment": AlignmentConfig(**ALIGNMENT[alignment]),
    }
    backbone = BackboneConfig.from_open_clip(BACKBONE)
    config = ModelConfig.from_backbone(backbone, frames=8, **parts)  # type: ignore[arg-type]
    model = RetrievalModel(config)
    for seed, (name, tower) in enumerate({"video": VideoTower, "text": TextTower}.items()):
        torch.manual_seed(seed)
        setattr(model, name, tower(config))
        redraw_zero_parameters(getattr(model, name), seed)
    return model.eval()


def traced_once(real: Callable[..., TracedGraph], folder: Path, part: Callable[[ModelConfig], object]) -> Any:
    """A trace costs seconds, and combinations share their towers: a graph is traced once for equal weights, structure
    and settings. Each export still holds the graph it got to its own towers."""
    known: dict[str, TracedGraph] = {}

    def trace(tower: torch.nn.Module, config: ModelConfig, path: Path, **options: Any) -> TracedGraph:
        digest = hashlib.sha256(repr((str(tower), part(config), sorted(options.items()))).encode())
        for name, tensor in tower.state_dict().items():
            digest.update(name.encode() + tensor.numpy().tobytes())
        key = digest.hexdigest()
        if key not in known:
            graph = real(tower, config, path, **options)
            known[key] = replace(graph, path=Path(shutil.copy(path, folder / f"{key}.onnx")))
        shutil.copy(known[key].path, path)
        return replace(known[key], path=path)

    return trace


def by_name(function: Callable[..., Any]) -> Callable[..., Any]:
    """Heads have no part in decoding: a golden clip is read once, by its name, wherever its copy lies."""
    known: dict[object, Any] = {}

    @functools.wraps(function)
    def read(path: Path, *spec: Any) -> Any:
        key = (path.name, *spec)
        if key not in known:
            known[key] = function(path, *spec)
        return known[key]

    return read


def written_once(real: Callable[..., None], folder: Path) -> Callable[..., None]:
    """The tokenizer is the same for all."""
    known: dict[object, Path] = {}

    def write(path: Path, **options: Any) -> None:
        key = tuple(sorted(options.items()))
        if key not in known:
            known[key] = folder / f"tokenizer-{len(known)}.json"
            real(known[key], **options)
        shutil.copy(known[key], path)

    return write


def gates_in_process(
    bundle: Path, checkpoint: Path, *, data: str | None, say: Callable[[str], None], **_: Any
) -> GateResult:
    report = run(bundle, checkpoint=checkpoint, data=data or "none")
    write_report(report, bundle / "reports")
    assert report.passed, report.verdict
    say(report.verdict)
    return GateResult(report.verdict, report.unproved)


@pytest.fixture(scope="module")
def cheap(tmp_path_factory: pytest.TempPathFactory) -> dict[ModuleType, dict[str, Any]]:
    """By module, what replaces its slow parts."""
    from vtr_conformance import run as conformance
    from vtr_conformance.hosts import open_in_process, runtime

    folder = tmp_path_factory.mktemp("traced")
    video = traced_once(
        graphs.trace_video, folder, lambda config: (config.temporal, config.alignment.of_video and config.alignment)
    )
    text = traced_once(
        graphs.trace_text, folder, lambda config: None if config.alignment.of_video else config.alignment
    )
    readers = {name: by_name(getattr(golden, name)) for name in ("read_frames", "read_rgb", "packet_times")}
    tokenizer = written_once(exporter.write_tokenizer, folder)
    return {
        exporter: {"write_tokenizer": tokenizer},
        graphs: {"trace_video": video, "trace_text": text},
        golden: readers,
        runtime: readers,
        conformance: {"open_host": lambda bundle, backend, _: open_in_process(bundle, backend)},
    }


@pytest.fixture
def shortcuts(cheap: dict[ModuleType, dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for module, replacements in cheap.items():
        for name, replacement in replacements.items():
            monkeypatch.setattr(module, name, replacement)
    return monkeypatch


# Each head with the demo's other one in every run, each with each among the long ones.
PAIRS = [
    pytest.param(temporal, alignment, marks=() if temporal == "mstdt A" or alignment == "dits" else pytest.mark.long)
    for temporal in TEMPORAL
    for alignment in ALIGNMENT
]


@pytest.mark.parametrize(("temporal", "alignment"), PAIRS)
def test_every_pair_of_heads_is_exported_or_refused(
    temporal: str, alignment: str, tmp_path: Path, shortcuts: pytest.MonkeyPatch
) -> None:
    model = build(temporal, alignment)
    checkpoint, output = tmp_path / "best.pt", tmp_path / "bundle"
    save_checkpoint(checkpoint, model)
    plan, said = ExportPlan(output=output, checkpoint=checkpoint, debug_outputs=True), []
    if alignment in ("fixed-prior", "diffusion"):
        with pytest.raises(ConfigError, match=rf"'{alignment}' cannot be exported: .* drawn at random .* trained with"):
            export(plan)
        assert list(tmp_path.iterdir()) == [checkpoint]
        return
    if (temporal, alignment) not in IN_A_CHILD:
        shortcuts.setattr(exporter, "run_gates", gates_in_process)
    result = export(plan, say=said.append)
    assert result.gates.verdict.startswith("every gate met")
    assert result.gates.verdict.endswith("0 failed, 0 not run")

    manifest, readme = open_bundle(output).manifest, (output / "README.md").read_text()
    kind = ALIGNMENT[alignment]["kind"]
    tower = None if kind == "none" else "video" if alignment == "dits gap t-v" else "text"
    sampler = manifest.sampler
    assert (sampler.kind, sampler.tower, sampler.noise) == (kind, tower, "none")
    assert sampler.steps == (STEPS if kind == "dits" else 0)
    assert sampler.condition == (None if kind == "none" else "text" if "condition" in alignment else "none")
    noisy = alignment == "dits with noise"
    assert any("without the noise of training and evaluation" in line for line in said) is noisy
    assert sampler.summary == SUMMARY[alignment]
    assert f"; alignment: {SUMMARY[alignment]}. " in readme
    assert (sampler.training_noise == sampler.evaluation_noise == "sqrt-beta") is noisy

    lines = [json.loads(line) for line in (output / "reports" / "conformance.jsonl").read_text().splitlines()[:-1]]
    lines = [line for line in lines if "stage" in line]
    steps = [line["case"] for line in lines if line["stage"].startswith("sampler_step_") and line["host"] != "pytorch"]
    rows = {"video": "clips", "text": "texts"}.get(tower or "", "")
    assert sorted(steps) == ([f"sampler_step_{k}/{rows}" for k in range(1, STEPS + 1)] if kind == "dits" else [])
    assert moved(model) < 0.7 if kind != "none" else moved(model) > 1 - 1e-6


@torch.no_grad()
def moved(model: Any) -> float:
    """The largest cosine of a start with its alignment, of the tower that has one."""
    without_evaluation_noise(model)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1, 49406, (6, 7), generator=generator, dtype=torch.int32)
    ids[:, -1] = 49407
    text = model.text.stages(ids)
    features, mask = torch.randn(6, 8, 64, generator=generator), torch.ones(6, 8, dtype=torch.bool)
    pairs = (
        (text["text_embedding"], text["aligned"]),
        (model.video.temporal(features, mask)[0], model.video.embed(features, mask)[0]),
    )
    return min(float(torch.cosine_similarity(start, aligned).max()) for start, aligned in pairs)


def test_a_second_stage_is_said_to_be_left_out(tmp_path: Path) -> None:
    plain = build("mean", "dits").config
    config = plain.model_copy(update={"rerank": RerankConfig(kind="x-pool")})
    assert left_out(plain, rerank=False) == left_out(config, rerank=True) == []
    assert left_out(config, rerank=False) == [
        "second stage 'x-pool': left out, --rerank exports it beside the two towers"
    ]
    asked = ExportPlan(output=tmp_path / "bundle", rerank=True)
    check_model(config, asked)
    with pytest.raises(ConfigError, match="trained without one; leave it out"):
        check_model(plain, asked)
