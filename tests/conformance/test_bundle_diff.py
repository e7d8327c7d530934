"""What changed between two bundles: copies with one thing changed, and a bundle of another model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import numpy_helper
from safetensors.numpy import load_file, save_file

from tests.conftest import SMALL_BACKBONE
from vtr_conformance.bundle_diff import BundleDiff, diff_bundles
from vtr_conformance.bundle_diff.vectors import smallest_cosine
from vtr_conformance.cli import main
from vtr_export.precision.lower import lower_precision
from vtr_runtime.bundle import open_bundle
from vtr_runtime.manifest import FileEntry, Manifest, file_sha256, variant_of


def rewrite(bundle: Path, **changes: Any) -> None:
    """Write the manifest anew with the files' hashes as they are."""
    manifest = Manifest.model_validate_json((bundle / "manifest.json").read_text())
    files = {n: FileEntry(sha256=file_sha256(bundle / n), size=(bundle / n).stat().st_size) for n in manifest.files}
    changed = manifest.model_copy(update={**changes, "files": files})
    variant = variant_of(changed.space, precision=changed.precision, opset=changed.opset)
    text = json.dumps(changed.model_copy(update={"variant": variant}).model_dump(mode="json"))
    (bundle / "manifest.json").write_text(text)


def scale_projection(bundle: Path, by: float) -> None:
    """Some columns of the text tower's projection."""
    proto = onnx.load(bundle / "text.onnx")
    [projection] = [tensor for tensor in proto.graph.initializer if tensor.name.endswith("text_projection")]
    values = numpy_helper.to_array(projection).copy()
    values[:, ::4] *= by
    projection.CopyFrom(numpy_helper.from_array(values, projection.name))
    onnx.save(proto, bundle / "text.onnx")
    rewrite(bundle)


def diff(a: Path, b: Path, backend: str = "auto") -> BundleDiff:
    return diff_bundles(open_bundle(a), open_bundle(b), backend)


def test_a_copy_is_the_same(small_bundle: Path, bundle_copy: Path) -> None:
    found = diff(small_bundle, bundle_copy)
    assert (found.fields, found.sizes, found.operators, found.notes, found.undone) == ((), (), (), (), ())
    assert {moved.measured for moved in (*found.golden, *found.found)} == {0.0}
    stages = [moved.stage for moved in found.found]
    assert stages == [
        "ids",
        "text_embedding",
        "sampler_step",
        "aligned",
        "frame_embeddings",
        "video_embedding",
        "ranking",
    ]
    assert [moved.stage for moved in found.golden] == ["container", "indices", "rgb", "pixels", *stages]
    assert all(m.cosine == pytest.approx(1.0) for m in found.found if m.stage not in ("ids", "ranking"))
    assert found.exit_status == 0
    assert found.verdict == "the same contract, and within A's gates (fp32)"
    assert found.searchable.startswith("one space")


def test_a_changed_weight_is_found_by_the_host_and_not_by_the_golden_vectors(
    small_bundle: Path, bundle_copy: Path
) -> None:
    scale_projection(bundle_copy, 1.1)
    found = diff(small_bundle, bundle_copy)
    assert all(moved.passed for moved in found.golden)
    assert [moved.stage for moved in found.beyond] == ["text_embedding", "sampler_step", "aligned", "ranking"]
    [aligned] = [moved for moved in found.found if moved.stage == "aligned"]
    assert aligned.cosine is not None
    assert aligned.cosine < 0.9999
    assert "at caption" in aligned.where
    assert [size.name for size in found.sizes] == ["text.onnx"]
    assert [(change.graph, change.kinds) for change in found.operators] == [("text", ())]
    assert found.contract == []
    assert found.exit_status == 3


def test_what_moves_less_than_the_gates_is_told_and_passes(small_bundle: Path, bundle_copy: Path) -> None:
    scale_projection(bundle_copy, 1 + 2e-6)
    found = diff(small_bundle, bundle_copy)
    [aligned] = [moved for moved in found.found if moved.stage == "aligned"]
    assert 0 < aligned.measured < aligned.limit == 1e-5
    assert found.exit_status == 0


def test_another_precision_is_held_to_the_gates_of_a(small_bundle: Path, bundle_copy: Path) -> None:
    for name in ("video.onnx", "text.onnx"):
        lower_precision(bundle_copy / name, bundle_copy / f"low-{name}", precision="fp16")
        (bundle_copy / f"low-{name}").replace(bundle_copy / name)
    rewrite(bundle_copy, precision="fp16", graph_precision="fp16")
    found = diff(bundle_copy, small_bundle)
    assert found.host == "typed-graph torch and vtr-runtime onnx-cpu"
    assert (found.precision, found.exit_status) == ("fp16", 0)
    assert {field.name: (field.a, field.b) for field in found.fields} == {
        "precision": ("fp16", "fp32"),
        "graph_precision": ("fp16", "fp32"),
        "variant": tuple(open_bundle(folder).manifest.variant for folder in (bundle_copy, small_bundle)),
    }
    casts = [(a, b) for change in found.operators for kind, a, b in change.kinds if kind == "Cast"]
    assert len(casts) == 2
    assert all(low > high for low, high in casts)
    back = diff(small_bundle, bundle_copy)
    assert back.exit_status == 3
    assert back.verdict.startswith("beyond A's gates (fp32): ")
    assert back.same_space


def test_golden_vectors_of_another_reference_are_told(small_bundle: Path, bundle_copy: Path) -> None:
    path = bundle_copy / "golden" / "golden.safetensors"
    tensors = load_file(path)
    tensors["aligned/texts/embedding"] = tensors["aligned/texts/embedding"][::-1].copy()
    save_file(tensors, path)
    rewrite(bundle_copy)
    found = diff(small_bundle, bundle_copy)
    assert [moved.stage for moved in found.beyond] == ["aligned"]
    assert all(moved.passed for moved in found.found)
    assert found.exit_status == 3


def test_golden_vectors_of_other_inputs_are_left_out(small_bundle: Path, bundle_copy: Path) -> None:
    path = bundle_copy / "golden" / "golden.json"
    data = json.loads(path.read_text())
    [words] = [case for case in data["cases"] if case["stage"] == "ids"]
    words["inputs"]["texts"][0] = "another sentence"
    data["cases"] = [case for case in data["cases"] if case["stage"] != "container"]
    path.write_text(json.dumps(data))
    rewrite(bundle_copy)
    found = diff(small_bundle, bundle_copy)
    assert {"ids", "container"}.isdisjoint(moved.stage for moved in found.golden)
    assert found.notes[0] == "golden vectors that cannot be compared: not in B: container; other inputs: ids"


@pytest.fixture(scope="module")
def other_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another model: 6 frames, mean pooling, embeddings of 32 numbers, no inner stages."""
    from vtr_export import ExportPlan, export, exporter
    from vtr_export.gates import GateResult
    from vtr_export.model.checkpoint import save_checkpoint
    from vtr_export.model.config import BackboneConfig, ModelConfig
    from vtr_export.model.retrieval import RetrievalModel
    from vtr_runtime.manifest import FrameSpec

    folder = tmp_path_factory.mktemp("other")
    backbone = BackboneConfig.from_open_clip({**SMALL_BACKBONE, "embed_dim": 32})
    config = ModelConfig.from_backbone(backbone)
    config = config.model_copy(update={"frames": FrameSpec(count=6, size=32)})
    save_checkpoint(folder / "best.pt", RetrievalModel(config).eval())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporter, "run_gates", lambda *_, **__: GateResult("not gated", ""))
        export(ExportPlan(output=folder / "bundle", checkpoint=folder / "best.pt"))
    return folder / "bundle"


def test_bundles_of_other_frames_and_lengths_are_compared_as_far_as_it_goes(
    small_bundle: Path, other_bundle: Path
) -> None:
    found = diff(small_bundle, other_bundle)
    broken = {field.name: (field.a, field.b) for field in found.contract}
    assert broken["dim"] == (64, 32)
    assert broken["frames.count"] == (12, 6)
    assert broken["graphs.video.input.frame_mask"] == ("bool [batch, 12]", "bool [batch, 6]")
    assert "graphs.text.output.text_embedding" not in broken  # for conformance alone
    assert not found.same_space
    assert "may not be searched together" in found.searchable
    assert "the bundles take other frames: each read A's golden clips by its own rule" in found.notes
    assert "aligned: [64] and [32] numbers a row have no distance" in found.notes
    assert [moved.stage for moved in found.found] == ["ids", "ranking"]
    assert [moved.stage for moved in found.beyond if moved in found.found] == ["ranking"]
    assert found.exit_status == 3
    assert found.verdict.startswith("another contract: dim, frames.count")


def test_what_b_has_more_breaks_nothing(other_bundle: Path, tmp_path: Path) -> None:
    """The same graphs, with a line more in the manifest: an optional part that A has not."""
    more = Path(shutil.copytree(other_bundle, tmp_path / "more"))
    graphs = open_bundle(more).manifest.graphs
    rewrite(more, graphs=graphs.model_copy(update={"frames": graphs.video}))
    found = diff(other_bundle, more)
    assert [field.name for field in found.fields if field.name.startswith("graphs.frames.")]
    assert found.exit_status == 0
    assert diff(more, other_bundle).exit_status == 3


def test_smallest_cosine_by_hand() -> None:
    a = np.array([[1.0, 0.0], [0.0, 2.0], [0.0, 0.0]])
    b = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    assert smallest_cosine(a, b) == pytest.approx(np.sqrt(0.5))
    assert smallest_cosine(a, b[:, :1]) is None
    assert smallest_cosine(a[2:], b[2:]) is None


def run_command(*arguments: object) -> Any:
    return CliRunner().invoke(main, ["compare", *map(str, arguments)])


def test_the_command(small_bundle: Path, bundle_copy: Path) -> None:
    same = run_command(small_bundle, bundle_copy)
    assert same.exit_code == 0
    assert same.stdout.splitlines()[-1] == "the same contract, and within A's gates (fp32)"
    assert "every gate met" in same.stdout  # of both reports
    scale_projection(bundle_copy, 1.1)
    moved = run_command(small_bundle, bundle_copy)
    assert moved.exit_code == 3
    assert "BEYOND" in moved.stdout
    assert moved.stdout.splitlines()[-1].startswith("beyond A's gates (fp32): text_embedding")
    said = json.loads(run_command(small_bundle, bundle_copy, "--json").stdout)
    assert said["verdict"] == moved.stdout.splitlines()[-1]
    assert {row["stage"] for row in said["found"] if not row["passed"]} == {
        "text_embedding",
        "sampler_step",
        "aligned",
        "ranking",
    }


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        (lambda bundle: [bundle], 2, "Missing argument"),
        (lambda bundle: [bundle, bundle], 2, "are one folder"),
        (lambda bundle: [bundle, bundle.parent / "no"], 1, "is not a folder"),
        (lambda bundle: [bundle, bundle.parent], 1, "is not a bundle"),
    ],
)
def test_misuse_is_one_sentence(
    small_bundle: Path, arguments: Callable[[Path], list[Path]], status: int, sentence: str
) -> None:
    done = run_command(*arguments(small_bundle))
    assert done.exit_code == status
    assert sentence in done.stderr


def test_an_engine_that_is_not_here_is_no_agreement(small_bundle: Path, bundle_copy: Path) -> None:
    found = diff(small_bundle, bundle_copy, backend="trt")
    assert found.found == ()
    assert len(found.undone) == 1
    assert found.exit_status == 1
    assert found.verdict.startswith("not compared: ")


def test_reports_are_read_and_not_trusted(small_bundle: Path, bundle_copy: Path) -> None:
    report = bundle_copy / "reports" / "conformance.jsonl"
    report.write_text('{"stage": "aligned"}\n{"verdict": "all is well\\u001b[31m"}\n')
    found = diff(small_bundle, bundle_copy)
    assert found.reports[0] is not None
    assert found.reports[0].worst["aligned"] < 1e-5
    assert found.reports[1] is None
    assert "cannot be read" in found.notes[0]
    report.write_text('{"verdict": "all is well\\u001b[31m"}\n')
    printed = run_command(small_bundle, bundle_copy).stdout
    assert "all is well" in printed
    assert "\x1b" not in printed
    report.unlink()
    assert "is not there" in diff(small_bundle, bundle_copy).notes[0]
