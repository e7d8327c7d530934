"""Golden vectors that are not there, of another bundle, or of other stages than this version knows."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from vtr_conformance.cases import golden_stages, read_cases
from vtr_conformance.cli import main
from vtr_conformance.run import run
from vtr_runtime.bundle import open_bundle
from vtr_runtime.errors import BundleError
from vtr_runtime.manifest import FileEntry, file_sha256
from vtr_runtime.stages import STAGES

GOLDEN = "golden/golden.json"


def rewrite(bundle: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change golden.json, and its hash in the manifest."""
    path = bundle / GOLDEN
    golden = json.loads(path.read_text())
    change(golden)
    path.write_text(json.dumps(golden))
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["files"][GOLDEN] = FileEntry(sha256=file_sha256(path), size=path.stat().st_size).model_dump()
    (bundle / "manifest.json").write_text(json.dumps(manifest))


def refused(bundle: Path) -> str:
    done = CliRunner().invoke(main, ["run", str(bundle), "--backend", "onnx-cpu"])
    assert done.exit_code == 1
    assert done.stdout == ""
    return " ".join(done.stderr.split())


def test_a_bundle_without_golden_vectors_is_refused(bundle_copy: Path) -> None:
    shutil.rmtree(bundle_copy / "golden")
    assert "golden.json is missing; copy the bundle again, or export it anew" in refused(bundle_copy)
    manifest = json.loads((bundle_copy / "manifest.json").read_text())
    manifest["files"] = {name: entry for name, entry in manifest["files"].items() if not name.startswith("golden/")}
    (bundle_copy / "manifest.json").write_text(json.dumps(manifest))
    assert "the manifest gives no hash for golden/golden.json" in refused(bundle_copy)


def test_golden_vectors_without_a_case_are_refused(bundle_copy: Path) -> None:
    rewrite(bundle_copy, lambda golden: golden.update(cases=[]))
    assert "has no golden vectors: its golden.json lists no case" in refused(bundle_copy)


def test_golden_vectors_of_another_bundle_are_refused(bundle_copy: Path) -> None:
    before = (bundle_copy / GOLDEN).read_bytes()
    (bundle_copy / GOLDEN).write_bytes(before.replace(b"clips", b"films"))
    assert "golden.json is damaged, its sha256 is not the manifest's" in refused(bundle_copy)
    (bundle_copy / GOLDEN).write_bytes(before)
    rewrite(bundle_copy, lambda golden: golden["made_by"].update(weights_sha256="0" * 64))
    assert "has the golden vectors of another model: they are of weights 000000000000" in refused(bundle_copy)


def test_a_stage_of_a_later_version_is_refused_by_name(bundle_copy: Path) -> None:
    rewrite(bundle_copy, lambda golden: golden["cases"][0].update(stage="sound"))
    assert "has a stage 'sound' that is not known here; upgrade" in refused(bundle_copy)


def test_what_is_no_json_is_refused(bundle_copy: Path) -> None:
    rewrite(bundle_copy, lambda _: None)
    (bundle_copy / GOLDEN).write_text("{")
    manifest = json.loads((bundle_copy / "manifest.json").read_text())
    manifest["files"][GOLDEN] = FileEntry(sha256=file_sha256(bundle_copy / GOLDEN), size=1).model_dump()
    (bundle_copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=r"golden\.json is damaged \(JSONDecodeError"):
        read_cases(open_bundle(bundle_copy))


def test_a_stage_without_a_case_is_not_run(bundle_copy: Path) -> None:
    def drop(golden: dict[str, Any]) -> None:
        kept = [case for case in golden["cases"] if case["stage"] != "rgb" and "sampler_step" not in case["stage"]]
        golden["cases"] = kept

    rewrite(bundle_copy, drop)
    report = run(bundle_copy, backends=("onnx-cpu",), batches=(1, 2))
    assert report.passed
    missing = [result for result in report.results if result.status == "not_run"]
    assert [r.stage for r in missing] == ["rgb", "sampler_step", "retrieval"]
    assert all("older than this stage; make them anew: vtr-conformance golden" in r.hint for r in missing[:2])


def test_the_stages_of_golden_vectors_are_those_that_the_exporter_writes(small_bundle: Path) -> None:
    bundle = open_bundle(small_bundle)
    written = {case.stage.partition("_step_")[0].replace("sampler", "sampler_step") for case in read_cases(bundle)}
    assert set(golden_stages(bundle.manifest)) == written
    assert {stage.name for stage in STAGES} - written == {"engine", "rerank", "corners", "invariance", "retrieval"}
