"""vtr-selfcheck on bundles with one planted fault each: it fails, and names the stage that the fault lies in.

The tool and the bundle are what `make cpp` makes (see conftest.py)."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import onnx
import pytest
from safetensors.numpy import load_file, save_file

from vtr_conformance.run import run
from vtr_runtime.manifest import file_sha256

NO_MATCH = 3

Plant = Callable[[Path], object]


def edit_json(name: str, change: Callable[[dict[str, Any]], object], bundle: Path) -> None:
    data = json.loads((bundle / name).read_text(encoding="utf-8"))
    change(data)
    (bundle / name).write_text(json.dumps(data), encoding="utf-8")


def edit_bytes(name: str, after: bytes, offset: int, value: bytes, bundle: Path) -> None:
    """Put `value` into a file, `offset` bytes behind the first `after`."""
    data = bytearray((bundle / name).read_bytes())
    place = data.index(after) + len(after) + offset
    assert data[place : place + len(value)] != value
    data[place : place + len(value)] = value
    (bundle / name).write_bytes(data)


def swap_words(tokenizer: dict[str, Any]) -> None:
    """Two words of the golden sentences change their ids."""
    words = tokenizer["model"]["vocab"]
    words["red</w>"], words["kitchen</w>"] = words["kitchen</w>"], words["red</w>"]


def scale_output(graph: str, output: str, bundle: Path) -> None:
    """An output, and all that is computed from it, comes out a hundredth too large."""
    path = bundle / f"{graph}.onnx"
    model = onnx.load(path)
    nodes = model.graph.node
    (place,) = (i for i, node in enumerate(nodes) if output in node.output)
    right = f"{output}_right"
    nodes[place].output[:] = [right if name == output else name for name in nodes[place].output]
    factor = onnx.helper.make_tensor("planted_factor", onnx.TensorProto.FLOAT, [], [1.01])
    model.graph.initializer.append(factor)
    nodes.insert(place + 1, onnx.helper.make_node("Mul", [right, factor.name], [output]))
    onnx.save(model, path)


def turn_scores(bundle: Path) -> None:
    """The golden ranking is of the clips in another order: no graph gives what it says."""
    path = bundle / "golden" / "golden.safetensors"
    arrays = load_file(path)
    arrays["ranking/texts-x-clips/scores"] = arrays["ranking/texts-x-clips/scores"][:, ::-1].copy()
    save_file(arrays, path)


MEDIA = "golden/media"
UPRIGHT = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
FAULTS: dict[str, Plant] = {
    # Another time from one frame to the next: stts, behind its version and two counts.
    "container": partial(edit_bytes, f"{MEDIA}/decord_video_90.mov", b"stts", 12, struct.pack(">I", 77)),
    "indices": partial(edit_json, "manifest.json", lambda manifest: manifest["frames"].update(sampling="fps1")),
    # The rotation is lost: the display matrix of tkhd, behind times and volume.
    "rgb": partial(edit_bytes, f"{MEDIA}/decord_video_90.mov", b"tkhd", 40, UPRIGHT),
    "pixels": partial(edit_json, "manifest.json", lambda manifest: manifest["frames"].update(size=48)),
    "ids": partial(edit_json, "tokenizer.json", swap_words),
    "text_embedding": partial(scale_output, "text", "text_embedding"),
    "sampler_step_3": partial(scale_output, "text", "sampler_step_3"),
    "sampler_step_2": partial(scale_output, "text", "sampler_step_2"),
    "sampler_step_1": partial(scale_output, "text", "sampler_step_1"),
    "aligned": partial(scale_output, "text", "embedding"),
    "frame_embeddings": partial(scale_output, "video", "frame_embeddings"),
    "video_embedding": partial(scale_output, "video", "embedding"),
    "rerank": partial(scale_output, "rerank", "scores"),
    "ranking": turn_scores,
}


def hash_anew(bundle: Path) -> None:
    """The manifest's hashes are the files' own, so that nothing but the golden vectors can find the fault."""

    def change(manifest: dict[str, Any]) -> None:
        for name in manifest["files"]:
            path = bundle / name
            manifest["files"][name] = {"sha256": file_sha256(path), "size": path.stat().st_size}

    edit_json("manifest.json", change, bundle)


def selfcheck(tools: Path, bundle: Path, report: Path) -> tuple[subprocess.CompletedProcess[str], list[dict[str, Any]]]:
    words = [tools / "vtr-selfcheck", bundle, "--report", report]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    return done, [json.loads(line) for line in report.read_text().splitlines()] if report.exists() else []


def test_the_sound_bundle_meets_every_gate_and_a_fault_is_planted_for_every_stage(
    cpp_tools: Path, cpp_bundle: Path, tmp_path: Path
) -> None:
    done, results = selfcheck(cpp_tools, cpp_bundle, tmp_path / "report.jsonl")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("every gate met: ")
    assert {result["status"] for result in results} == {"pass"}
    golden = json.loads((cpp_bundle / "golden" / "golden.json").read_text())
    assert {case["stage"] for case in golden["cases"]} == {result["stage"] for result in results} == FAULTS.keys()


@pytest.mark.parametrize("stage", FAULTS)
def test_a_planted_fault_is_found_at_its_stage(stage: str, cpp_tools: Path, cpp_bundle: Path, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(cpp_bundle, tmp_path / "bundle"))
    FAULTS[stage](bundle)
    hash_anew(bundle)
    done, results = selfcheck(cpp_tools, bundle, tmp_path / "report.jsonl")
    assert done.returncode == NO_MATCH, done.stderr
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1].startswith(f"first stage that moved: {stage}: ")
    failed = [result for result in results if result["status"] == "fail"]
    assert failed[0]["stage"] == stage
    assert all(result["hint"] for result in failed)
    assert not any(result["status"] == "not_run" for result in results)


def test_it_is_a_host_of_the_suite(cpp_tools: Path, cpp_bundle: Path) -> None:
    report = run(cpp_bundle, data="none", examples=1, commands=[f"{cpp_tools / 'vtr-selfcheck'} --serve"])
    assert report.verdict.startswith("every gate met"), report.verdict
    ran = {result.stage for result in report.results if result.status == "pass"}
    assert ran >= {*FAULTS, "corners", "invariance"}
