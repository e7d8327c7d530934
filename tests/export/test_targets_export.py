"""Every target from its command line to a published bundle, and what is published where one cannot be made here."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner, Result

from vtr_export.cli import main
from vtr_export.model import (
    AlignmentConfig,
    BackboneConfig,
    ModelConfig,
    RerankConfig,
    RetrievalModel,
    TemporalConfig,
    redraw_zero_parameters,
    save_checkpoint,
)
from vtr_runtime import load
from vtr_runtime.bundle import open_bundle
from vtr_runtime.engines import find_engines
from vtr_runtime.errors import BundleError
from vtr_runtime.openvino import cpu_has_bf16

ROOT = Path(__file__).parents[2]
BACKBONE = {
    "embed_dim": 64,
    "vision_cfg": {"image_size": 32, "patch_size": 16, "layers": 2, "width": 64, "head_width": 32},
    "text_cfg": {"width": 64, "heads": 2, "layers": 2},
}
QUERY = "two people cook"

needs_bf16 = pytest.mark.skipif(not cpu_has_bf16(), reason="this CPU has no bf16")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """mstdt, dits and a second stage, all redrawn."""
    torch.manual_seed(0)
    config = ModelConfig.from_backbone(
        BackboneConfig.from_open_clip(BACKBONE),
        frames=8,
        temporal=TemporalConfig(kind="mstdt", scales=(3,), heads=2, position_init="normal", init="random"),
        alignment=AlignmentConfig(kind="dits", steps=2, blocks=1, heads=2),
        rerank=RerankConfig(kind="token-wise"),
    )
    model = RetrievalModel(config).eval()
    redraw_zero_parameters(model, 0)
    path = tmp_path_factory.mktemp("checkpoint") / "best.pt"
    save_checkpoint(path, model)
    return path


def run(checkpoint: Path, output: Path, arguments: str) -> Result:
    words = ["--ckpt", str(checkpoint), *arguments.split(), "-o", str(output), "--json"]
    return CliRunner().invoke(main, words)


@pytest.fixture(scope="module")
def everywhere(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], str]:
    """One bundle in fp32 for all targets that this machine can make, with the JSON and the steps."""
    output = tmp_path_factory.mktemp("fp32") / "bundle"
    targets = "--target onnx --target openvino --target triton --target trt-rtx"
    done = run(checkpoint, output, f"{targets} --precision fp32 --rerank --split-video --batch 1:2:4 --sm 89")
    assert done.exit_code == 0, done.stderr
    return output, json.loads(done.stdout), done.stderr


def test_one_bundle_serves_every_target(everywhere: tuple[Path, dict[str, Any], str]) -> None:
    output, answer, _ = everywhere
    assert sorted(path.name for path in (output / "engines").iterdir()) == [
        "openvino-fp32",
        "triton",
        "trt-rtx-fp32-sm89",
    ]
    graphs = {"video", "text", "rerank", "frames", "temporal"}
    assert {record.id: set(record.precision_used) for _, record in find_engines(output / "engines")} == {
        "openvino-fp32": graphs,
        "trt-rtx-fp32-sm89": graphs,
    }
    assert {graph["name"] for graph in answer["graphs"]} == graphs
    assert all(graph["difference"] < 1e-5 for graph in answer["graphs"])
    assert {engine["target"] for engine in answer["engines"]} == {"openvino", "triton", "trt-rtx"}
    assert not any(engine["undone"] for engine in answer["engines"])
    assert (answer["precision"], answer["opset"]) == ("fp32", 20)
    assert answer["gates"].startswith("every gate met")
    # The text tower's three inner stages, on two backends; the second stage's three cases in float64.
    assert answer["gates"].endswith(" 0 failed, 9 not run")


def test_every_step_is_said(everywhere: tuple[Path, dict[str, Any], str]) -> None:
    said = [line for line in everywhere[2].splitlines() if line.startswith("[")]
    numbers = [line.partition("]")[0] for line in said]
    steps = 5 + 5 + 3  # graphs and targets
    assert [number for number in numbers if number.endswith(f"/{steps}")] == [
        f"[{n}/{steps}" for n in range(1, steps + 1)
    ]


def test_the_backends_agree_on_it(everywhere: tuple[Path, dict[str, Any], str], good_clips: list[Path]) -> None:
    found = []
    for backend in ("onnx-cpu", "openvino"):
        model = load(everywhere[0], backend, threads=1)
        found.append((model.encode_texts([QUERY]), model.encode_videos(good_clips[:1])))
    for ours, other in zip(*found, strict=True):
        assert np.abs(ours - other).max() < 1e-5


def test_no_published_graph_tells_where_it_was_made(everywhere: tuple[Path, dict[str, Any], str]) -> None:
    output = everywhere[0]
    graphs = [path for path in output.rglob("*") if path.suffix in (".onnx", ".xml", ".plan", ".pbtxt")]
    assert len(graphs) > 15
    words = [str(ROOT), str(Path(sys.prefix)), "site-packages", tempfile.gettempdir(), str(Path.home()), ".py"]
    for path in [*graphs, output / "manifest.json"]:
        held = path.read_bytes()
        assert [word for word in words[: 5 if path.suffix != ".onnx" else 6] if word.encode() in held] == [], path.name


def test_its_scripts_name_no_path_and_its_gates_run_again(
    everywhere: tuple[Path, dict[str, Any], str], checkpoint: Path
) -> None:
    folder = everywhere[0] / "reports" / "reproduce"
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["1-export.sh", "2-gates.sh", "3-build-openvino.sh", "4-build-trt-rtx.sh"]
    for path in folder.iterdir():
        text = path.read_text().removeprefix("#!/usr/bin/env bash")
        assert not [word for word in text.split() if word.strip("\"'").startswith("/")], path.name
        assert str(checkpoint.parent) not in text
        assert str(ROOT) not in text
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    script = [str(folder / "2-gates.sh")]
    environment.pop("CKPT", None)
    unasked = subprocess.run(script, env=environment, capture_output=True, text=True, check=False)
    assert unasked.returncode != 0
    assert "set CKPT to the checkpoint, best.pt" in unasked.stderr
    done = subprocess.run(
        script, env={**environment, "CKPT": str(checkpoint)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "every gate met" in done.stdout


def test_a_bundle_that_is_being_written_is_none(everywhere: tuple[Path, dict[str, Any], str], tmp_path: Path) -> None:
    """The manifest is written after what it hashes, and a file that is not finished is not the one it hashes."""
    staged = tmp_path / ".bundle.abc.part"
    shutil.copytree(everywhere[0], staged, ignore=shutil.ignore_patterns("manifest.json", "engines"))
    with pytest.raises(BundleError, match=r"is not a bundle: it holds no manifest\.json"):
        open_bundle(staged)
    shutil.copy(everywhere[0] / "manifest.json", staged)
    graph = staged / "text.onnx"
    graph.write_bytes(graph.read_bytes()[:-1000])
    with pytest.raises(BundleError, match=r"text\.onnx has \d+ bytes, not \d+"):
        open_bundle(staged)


def test_fp16_where_one_target_cannot_be_made_here(checkpoint: Path, tmp_path: Path) -> None:
    """No TensorRT: the typed graphs and the device's recipe are published all the same, and the exit status is 1."""
    done = run(checkpoint, tmp_path / "bundle", "--target trt --target trt-rtx --rerank --batch 1:2:4")
    assert done.exit_code == 1, done.stderr
    assert "not done: target trt: " in done.stderr
    assert "the typed graphs and engines/trt-recipe/README.md, what to run there, are published" in done.stderr
    answer, bundle = json.loads(done.stdout), open_bundle(tmp_path / "bundle")
    assert [bool(engine["undone"]) for engine in answer["engines"]] == [True, False]
    assert (answer["precision"], answer["opset"]) == ("fp16", 20)
    recipe = tmp_path / "bundle" / "engines" / "trt-recipe"
    assert "trtexec --onnx=video.onnx" in (recipe / "README.md").read_text()
    assert str(tmp_path) not in (recipe / "README.md").read_text()
    [(_, record)] = find_engines(tmp_path / "bundle" / "engines")
    used = {name: found.precision for name, found in record.precision_used.items()}
    assert used == {"video": "fp16", "text": "fp16", "rerank": "fp32"}
    kinds = {name: product_types(bundle.file(f"{name}.onnx")) for name in used}
    assert onnx.TensorProto.FLOAT16 in kinds["video"]
    assert onnx.TensorProto.FLOAT16 in kinds["text"]
    assert kinds["rerank"] == {onnx.TensorProto.FLOAT}


def product_types(path: Path) -> set[int]:
    """Of what the matrix products give."""
    model = onnx.shape_inference.infer_shapes(onnx.load(path))
    graph = model.graph
    types = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.output)}
    return {
        types[node.output[0]] for node in graph.node if node.op_type in ("MatMul", "Gemm") if node.output[0] in types
    }


def test_bf16_for_rtx_is_one_attention_operator(checkpoint: Path, tmp_path: Path) -> None:
    done = run(checkpoint, tmp_path / "bundle", "--target trt-rtx --precision bf16 --batch 1:2:4 --sm 89,120")
    assert done.exit_code == 0, done.stderr
    bundle = open_bundle(tmp_path / "bundle")
    assert (bundle.manifest.precision, bundle.manifest.graph_precision, bundle.manifest.opset) == ("bf16", "bf16", 23)
    assert bundle.manifest.graphs.rerank is None
    operators = {node.op_type for node in onnx.load(bundle.file("video.onnx")).graph.node}
    assert "Attention" in operators
    assert onnx.TensorProto.BFLOAT16 in product_types(bundle.file("video.onnx"))
    [(folder, record)] = find_engines(tmp_path / "bundle" / "engines")
    assert (folder.name, record.capabilities) == ("trt-rtx-bf16-sm89-120", ("89", "120"))
    assert {found.precision for found in record.precision_used.values()} == {"bf16"}
    assert "second stage 'token-wise': left out, --rerank exports it" in done.stderr


@needs_bf16
def test_openvinos_bf16_is_a_hint_that_auto_follows(
    everywhere: tuple[Path, dict[str, Any], str], checkpoint: Path, tmp_path: Path
) -> None:
    done = run(checkpoint, tmp_path / "bundle", "--target openvino --precision bf16 --rerank")
    assert done.exit_code == 0, done.stderr
    model, fp32 = load(tmp_path / "bundle", threads=1), open_bundle(everywhere[0]).manifest
    manifest = model.manifest
    assert (manifest.precision, manifest.graph_precision) == ("bf16", "fp32")
    assert (manifest.space == fp32.space, manifest.variant == fp32.variant) == (True, False)
    assert model.backend_choice.startswith("openvino (auto: bf16 is a hint")
    [(_, record)] = find_engines(tmp_path / "bundle" / "engines")
    used = {name: found.precision for name, found in record.precision_used.items()}
    assert used == {"video": "bf16", "text": "bf16", "rerank": "fp32"}
    want = load(everywhere[0], "onnx-cpu", threads=1).encode_texts([QUERY])
    assert 1e-6 < 1 - float((model.encode_texts([QUERY]) * want).sum()) < 1e-3


@pytest.mark.long
def test_int8_of_a_model_that_does_not_retrieve_is_refused(
    checkpoint: Path, tmp_path: Path, good_clips: list[Path]
) -> None:
    """Its only gate is the R@1 that it loses, which says nothing here: not proved is not published."""
    lines = [
        {"video": str(clip), "captions": [f"{clip.stem} {part}"], "split": split, "start": start, "end": start + 0.5}
        for clip in good_clips
        for part, split, start in (("first", "train", 0.0), ("then", "test", 0.0), ("last", "test", 0.5))
    ]
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = run(checkpoint, tmp_path / "bundle", f"--precision int8 --eval-data {data}")
    assert done.exit_code == 3, done.stderr
    assert "nothing was published, the report lies at" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle.failed", "data.jsonl"]
    *_, last = (tmp_path / "bundle.failed" / "conformance.jsonl").read_text().splitlines()
    assert "int8 is not proved" in json.loads(last)["unproved"]


def test_weights_that_are_not_finite_are_named(checkpoint: Path, tmp_path: Path) -> None:
    from vtr_export.model.checkpoint import load_checkpoint

    model = load_checkpoint(checkpoint).model
    with torch.no_grad():
        model.text.backbone.ln_final.weight[3] = float("nan")
    save_checkpoint(tmp_path / "best.pt", model)
    done = run(tmp_path / "best.pt", tmp_path / "bundle", "")
    assert done.exit_code == 1
    assert "1 of the 64 values of text.backbone.ln_final.weight are NaN or infinite" in done.stderr
    assert "Traceback" not in done.output
    assert [path.name for path in tmp_path.iterdir()] == ["best.pt"]
