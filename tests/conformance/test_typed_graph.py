"""A bundle in fp16 and bf16: proved by its typed graphs, and not run where an engine cannot compute in them."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
from click.testing import CliRunner
from onnx import numpy_helper

from vtr_conformance.cli import main
from vtr_conformance.hosts import default_backends
from vtr_conformance.run import run
from vtr_export.gates import run_gates
from vtr_export.precision.lower import LowPrecision, lower_precision
from vtr_runtime import load
from vtr_runtime.backends import PrecisionError
from vtr_runtime.bundle import open_bundle
from vtr_runtime.errors import GateError
from vtr_runtime.manifest import FileEntry, Manifest, file_sha256, variant_of

IN_THE_GRAPHS = {"text_embedding", "aligned", "frame_embeddings", "video_embedding", "ranking", "corners", "invariance"}


def lower_bundle(bundle: Path, precision: LowPrecision) -> None:
    """What an export in this precision writes: typed graphs, and a manifest that says so."""
    for name in ("video.onnx", "text.onnx"):
        lower_precision(bundle / name, bundle / f"low-{name}", precision=precision)
        (bundle / f"low-{name}").replace(bundle / name)
    rewrite(bundle, precision=precision, graph_precision=precision)


def rewrite(bundle: Path, **changes: str) -> None:
    """Write the manifest anew with the graphs' hashes as they are."""
    manifest = open_manifest(bundle)
    files = {n: FileEntry(sha256=file_sha256(bundle / n), size=(bundle / n).stat().st_size) for n in manifest.files}
    changed = manifest.model_copy(update={**changes, "files": files})
    variant = variant_of(changed.space, precision=changed.precision, opset=changed.opset)
    text = json.dumps(changed.model_copy(update={"variant": variant}).model_dump(mode="json"))
    (bundle / "manifest.json").write_text(text)


def open_manifest(bundle: Path) -> Manifest:
    return Manifest.model_validate_json((bundle / "manifest.json").read_text())


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_the_typed_graphs_are_the_proof(bundle_copy: Path, small_checkpoint: Path, precision: LowPrecision) -> None:
    lower_bundle(bundle_copy, precision)
    report = run(bundle_copy, checkpoint=small_checkpoint)
    assert report.passed
    assert report.unproved == ""
    proved = {r.stage for r in report.results if (r.host, r.backend, r.status) == ("typed-graph", "torch", "pass")}
    assert proved >= IN_THE_GRAPHS
    engine = [r for r in report.results if r.host == "vtr-runtime"]
    assert {r.stage for r in engine if r.status == "pass"} == {"container", "indices", "rgb", "pixels", "ids"}
    reasons = {r.hint for r in engine if r.status == "not_run"}
    assert len(reasons) == 1
    assert {"fp16": "emulates fp16", "bf16": "no bf16 kernels"}[precision] in reasons.pop()
    moved = [r.measured for r in report.results if r.host == "typed-graph" and r.stage == "video_embedding"]
    assert max(m for m in moved if m is not None) > 0  # in fp32 nothing would have been rounded


def test_an_engine_that_cannot_run_the_precision_proves_nothing(bundle_copy: Path) -> None:
    lower_bundle(bundle_copy, "fp16")
    done = CliRunner().invoke(main, ["run", str(bundle_copy), "--backend", "onnx-cpu"])
    assert done.exit_code == 3
    assert "nothing was checked" in done.stdout


def test_a_backend_without_kernels_refuses_to_load(bundle_copy: Path) -> None:
    lower_bundle(bundle_copy, "bf16")
    with pytest.raises(PrecisionError, match="no bf16 kernels"):
        load(bundle_copy)


def test_a_hint_of_less_precision_leaves_an_fp32_graph_to_the_limits_of_fp32(bundle_copy: Path) -> None:
    rewrite(bundle_copy, precision="bf16")
    assert default_backends(open_manifest(bundle_copy)) == ("auto",)
    report = run(bundle_copy, backends=("onnx-cpu",))
    assert {r.precision for r in report.results} == {"fp32"}
    assert report.passed
    assert "bf16 is not proved" in report.verdict


def test_the_exporters_gates_do_not_publish_what_is_not_proved(
    bundle_copy: Path, small_checkpoint: Path, tmp_path: Path
) -> None:
    rewrite(bundle_copy, precision="bf16")
    failed = tmp_path / "failed"
    with pytest.raises(GateError, match=r"bf16 is not proved.*the report lies at"):
        run_gates(
            bundle_copy, small_checkpoint, data=None, failed=failed, backends=("onnx-cpu",), batch="1:2:2", say=print
        )
    lines = [json.loads(line) for line in (failed / "conformance.jsonl").read_text().splitlines()]
    assert {line["backend"] for line in lines if "backend" in line} == {"onnx-cpu", "torch"}
    assert {line["case"] for line in lines if line.get("stage") == "corners" and "video" in line["case"]} == {
        "video, batch 1",
        "video, batch 2",
    }


def test_int8_without_data_is_not_proved(bundle_copy: Path) -> None:
    rewrite(bundle_copy, precision="int8", graph_precision="int8")
    report = run(bundle_copy)
    [retrieval] = [r for r in report.results if r.stage == "retrieval"]
    assert (retrieval.status, retrieval.precision) == ("not_run", "int8")
    assert "add --data" in retrieval.hint
    assert "int8 is not proved" in report.unproved


def test_a_weight_spoiled_in_the_typed_graph_fails_its_stage(bundle_copy: Path, small_checkpoint: Path) -> None:
    """Some columns of the text tower's projection are 10 % off: far more than fp16 rounds away."""
    proto = onnx.load(bundle_copy / "text.onnx")
    [projection] = [tensor for tensor in proto.graph.initializer if tensor.name.endswith("text_projection")]
    spoiled = numpy_helper.to_array(projection).copy()
    spoiled[:, ::4] *= 1.1
    projection.CopyFrom(numpy_helper.from_array(spoiled, projection.name))
    onnx.save(proto, bundle_copy / "text.onnx")
    lower_bundle(bundle_copy, "fp16")
    report = run(bundle_copy, checkpoint=small_checkpoint, data="none")
    assert report.verdict.startswith("first stage that moved: text_embedding (typed-graph, torch)")


def test_the_bundle_stays_loadable(bundle_copy: Path) -> None:
    lower_bundle(bundle_copy, "fp16")
    manifest = open_bundle(bundle_copy).manifest
    assert (manifest.precision, manifest.graph_precision) == ("fp16", "fp16")
    assert default_backends(manifest) == ("auto", "typed-graph")
