"""Golden vectors: what lies in them, how they are compared and made anew, and those that cannot be used."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from vtr_conformance.cases import absent_stages, read_cases
from vtr_conformance.cli import main
from vtr_conformance.run import run
from vtr_export import provenance
from vtr_export.bundle_writer import update_manifest
from vtr_export.golden import write_golden
from vtr_export.model.checkpoint import load_checkpoint, save_checkpoint
from vtr_runtime.bundle import open_bundle
from vtr_runtime.engines.device import host_platform
from vtr_runtime.engines.record import EngineRecord, core_hash, read_record, write_record
from vtr_runtime.errors import BundleError
from vtr_runtime.manifest import PRECISIONS
from vtr_runtime.model import Model
from vtr_runtime.stages import stage_of

ROOT = Path(__file__).parent.parent.parent
Header = dict[str, Any]


def command(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["golden", *map(str, arguments)])


def edit(bundle: Path, change: Callable[[Header, dict[str, Any]], object]) -> None:
    """Change golden.json and its tensors, with hashes that fit again."""
    folder = bundle / "golden"
    header, tensors = json.loads((folder / "golden.json").read_text()), load_file(folder / "golden.safetensors")
    change(header, tensors)
    (folder / "golden.json").write_text(json.dumps(header))
    save_file(tensors, folder / "golden.safetensors")
    update_manifest(bundle, open_manifest(bundle), ["golden/golden.json", "golden/golden.safetensors"])


def open_manifest(bundle: Path) -> Any:
    from vtr_runtime.manifest import parse_manifest

    return parse_manifest((bundle / "manifest.json").read_text(), origin=str(bundle))


def golden_of(bundle: Path) -> Header:
    return json.loads((bundle / "golden" / "golden.json").read_text())  # type: ignore[no-any-return]


def test_every_case_says_how_it_is_compared(small_bundle: Path) -> None:
    for case in golden_of(small_bundle)["cases"]:
        gates = stage_of(case["stage"]).gates
        assert case["comparator"] == {precision: gates[precision].comparator for precision in PRECISIONS}
        assert case["tolerance"] == {precision: gates[precision].limit for precision in PRECISIONS}


def test_tensors_are_of_types_that_every_reader_has(small_bundle: Path) -> None:
    with safe_open(small_bundle / "golden" / "golden.safetensors", "numpy") as file:
        kinds = {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
    assert kinds <= {"F32", "F64", "I32", "I64", "U8", "BOOL"}


def test_a_bundle_can_be_read_by_others_than_its_owner(small_bundle: Path) -> None:
    mask = os.umask(0)
    os.umask(mask)
    for path in small_bundle.rglob("*"):
        if path.is_file() and path.suffix != ".sh":
            assert path.stat().st_mode & 0o777 == 0o666 & ~mask, path


def test_golden_vectors_say_what_made_them(small_bundle: Path) -> None:
    made_by, manifest = golden_of(small_bundle)["made_by"], open_bundle(small_bundle).manifest
    assert made_by["weights_sha256"] == manifest.weights_sha256
    assert {"vtr-export", "vtr-runtime", "torch", "numpy", "av", "open_clip_torch"} <= made_by.keys()
    assert made_by["numpy"] == np.__version__


def test_the_revision_is_the_checkouts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def git(*words: str) -> str:
        identity = ("-c", "user.name=a", "-c", "user.email=a@example.com")
        done = subprocess.run(
            ["git", "-C", str(tmp_path), *identity, *words], capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "vtr_export" / "provenance.py"))
    assert provenance.source_revision() == {}  # from no checkout: the version says all
    git("init", "-q")
    (tmp_path / "source.py").write_text("1")
    git("add", ".")
    git("commit", "-qm", "one")
    git("tag", "v1")
    commit = git("rev-parse", "HEAD")
    assert provenance.source_revision() == {"revision": commit}
    (tmp_path / "source.py").write_text("2")
    assert provenance.source_revision() == {"revision": f"{commit}-dirty"}
    monkeypatch.setenv("PATH", str(tmp_path))
    assert provenance.source_revision() == {}  # no git


def test_the_same_inputs_give_the_same_bytes(small_checkpoint: Path, small_model: Model, tmp_path: Path) -> None:
    made = []
    for name in ("first", "second"):
        own = load_checkpoint(small_checkpoint)
        files = write_golden(
            own.model.eval(), small_model.tokenizer, tmp_path / name, weights_sha256=own.weights_sha256
        )
        made.append({file: (tmp_path / name / file).read_bytes() for file in files})
    assert made[0] == made[1]


def test_nothing_differs_from_what_was_just_made(small_bundle: Path, small_checkpoint: Path) -> None:
    done = command(small_bundle, "--ckpt", small_checkpoint, "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert {case["what"] for case in found["cases"]} == {"same"}
    assert found["before"] == found["after"]
    assert found["bytes"] < 10e6
    assert len(found["cases"]) == len(golden_of(small_bundle)["cases"])


def test_a_difference_within_its_limit_is_told_and_passes(bundle_copy: Path, small_checkpoint: Path) -> None:
    def move(_: Header, tensors: dict[str, Any]) -> None:
        tensors["aligned/texts/embedding"] = tensors["aligned/texts/embedding"] + np.float32(1e-7)

    edit(bundle_copy, move)
    done = command(bundle_copy, "--ckpt", small_checkpoint, "--json")
    assert done.exit_code == 0, done.output
    cases = {case["case"]: case for case in json.loads(done.stdout)["cases"]}
    assert cases["aligned/texts"]["what"] == "within"
    assert 5e-8 < cases["aligned/texts"]["measured"] < 2e-7


def test_what_is_new_gone_or_changed_is_told(bundle_copy: Path, small_checkpoint: Path) -> None:
    def change(header: Header, tensors: dict[str, Any]) -> None:
        header["cases"] = [case for case in header["cases"] if case["id"] != "rgb/vtr_alpha.mov"]  # so it is new
        old = dict(header["cases"][0], id="container/gone.mov")
        header["cases"].append(old)
        tensors["sampler_step_2/texts/sampler_step_2"][3, 5] += 1.0
        [ids] = [case for case in header["cases"] if case["stage"] == "ids"]
        ids["inputs"]["texts"][0] = "another sentence"

    edit(bundle_copy, change)
    done = command(bundle_copy, "--ckpt", small_checkpoint)
    assert done.exit_code == 3
    lines = [line for line in done.stdout.splitlines() if line.startswith(("new ", "gone ", "changed "))]
    assert lines[0] == "gone container/gone.mov"
    assert lines[1] == "new rgb/vtr_alpha.mov"
    assert lines[2] == "changed ids/texts another text"
    assert lines[3].startswith("changed sampler_step_2/texts by ")
    assert lines[3].endswith("at row 3, number 5")
    assert "--write -o NEW" in done.stderr


def test_other_clips_are_other_inputs(bundle_copy: Path, small_checkpoint: Path) -> None:
    clip = bundle_copy / "golden" / "media" / "vtr_alpha.mov"
    clip.write_bytes(clip.read_bytes() + b"\0")
    update_manifest(bundle_copy, open_manifest(bundle_copy), ["golden/media/vtr_alpha.mov"])
    done = command(bundle_copy, "--ckpt", small_checkpoint)
    assert done.exit_code == 3
    assert "changed rgb/vtr_alpha.mov another clip" in done.stdout


def engine(bundle: Path, name: str, core: str) -> Path:
    folder = bundle / "engines" / name
    folder.mkdir(parents=True)
    (folder / "video.plan").write_bytes(b"plan")
    record = EngineRecord(
        id=name,
        target="openvino",
        core=core,
        precision="fp32",
        precision_used={},
        library="openvino",
        library_version="1",
        platform=host_platform(),
        files={},
        seconds=1.0,
    )
    write_record(folder, record)
    return folder


def test_new_vectors_are_published_in_a_bundle_of_their_own(
    bundle_copy: Path, small_checkpoint: Path, tmp_path: Path
) -> None:
    edit(bundle_copy, lambda header, _: header["cases"].pop())  # ranking
    edit(bundle_copy, lambda header, _: header["made_by"].update(torch="1.0"))
    before = open_bundle(bundle_copy).manifest
    engine(bundle_copy, "mine", core_hash(before))
    engine(bundle_copy, "foreign", "0" * 64)
    untouched = {path: path.read_bytes() for path in bundle_copy.rglob("*") if path.is_file()}
    new = tmp_path / "new"
    done = command(bundle_copy, "--ckpt", small_checkpoint, "--write", "-o", new)
    assert done.exit_code == 0, done.output
    assert "new ranking/texts-x-clips" in done.stdout
    assert "made by torch 1.0, now" in done.stdout
    assert f"next: vtr-conformance run {new}" in done.stdout
    assert {path: path.read_bytes() for path in bundle_copy.rglob("*") if path.is_file()} == untouched

    after = open_bundle(new).manifest
    assert (after.space, after.variant, after.graphs) == (before.space, before.variant, before.graphs)
    assert [case.id for case in read_cases(open_bundle(new))][-1] == "ranking/texts-x-clips"
    assert (new / "video.onnx").stat().st_ino == (bundle_copy / "video.onnx").stat().st_ino
    assert read_record(new / "engines" / "mine").core == core_hash(after) != core_hash(before)
    assert read_record(new / "engines" / "foreign").core == "0" * 64
    assert (new / "engines" / "mine" / "video.plan").read_bytes() == b"plan"
    # The verdict was on other golden vectors.
    assert (bundle_copy / "reports" / "conformance.jsonl").is_file()
    assert {path.name for path in (bundle_copy / "reports").iterdir()} >= {"junit.xml", "report.html"}
    assert not list((new / "reports").glob("*.*"))
    assert "not run on these golden vectors yet" in (new / "README.md").read_text()
    assert command(new, "--ckpt", small_checkpoint).exit_code == 0
    judged = ["run", str(new), "--no-modules", "--no-speed", "--batch", "1:1:2", "--report", str(new / "reports")]
    assert CliRunner().invoke(main, judged).exit_code == 0
    assert "not run on these golden vectors yet" not in (new / "README.md").read_text()
    assert "Conformance: **every gate met: " in (new / "README.md").read_text()
    again = command(bundle_copy, "--ckpt", small_checkpoint, "--write", "-o", new)
    assert again.exit_code == 2
    assert "exists already" in again.stderr


@pytest.mark.parametrize("arguments", [["--write"], ["-o", "new"]])
def test_golden_vectors_are_never_written_in_place(
    small_bundle: Path, small_checkpoint: Path, arguments: list[str]
) -> None:
    done = command(small_bundle, "--ckpt", small_checkpoint, *arguments)
    assert done.exit_code == 2
    assert "never in place" in done.stderr


def test_another_checkpoint_is_refused(small_bundle: Path, small_checkpoint: Path, tmp_path: Path) -> None:
    model = load_checkpoint(small_checkpoint).model
    model.logit_scale.data.add_(0.1)
    save_checkpoint(tmp_path / "other.pt", model)
    done = command(small_bundle, "--ckpt", tmp_path / "other.pt")
    assert done.exit_code == 1
    assert "is not the checkpoint that" in done.stderr


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda header: header["made_by"].update(weights_sha256="0" * 64), r"of another model: .* make them anew: vtr"),
        (lambda header: header["cases"].clear(), r"has no golden vectors: .* make them anew: vtr-conformance golden"),
        (lambda header: header["cases"][0].update(stage="touch"), r"a stage 'touch' that is not known here; upgrade"),
        (lambda header: header["cases"][0]["expected"].update(times="nowhere"), r"is damaged \(KeyError: 'nowhere'\)"),
        (lambda header: header.pop("cases"), r"is damaged \(KeyError"),
    ],
)
def test_golden_vectors_that_cannot_be_used_are_refused(
    bundle_copy: Path, change: Callable[[Header], object], words: str
) -> None:
    edit(bundle_copy, lambda header, _: change(header))
    with pytest.raises(BundleError, match=words):
        run(bundle_copy)


def test_a_file_that_is_no_json_is_refused(bundle_copy: Path) -> None:
    (bundle_copy / "golden" / "golden.json").write_text("golden")
    update_manifest(bundle_copy, open_manifest(bundle_copy), ["golden/golden.json"])
    with pytest.raises(BundleError, match=r"golden.json is damaged \(JSONDecodeError"):
        run(bundle_copy)


def test_a_bundle_without_golden_vectors_is_refused(bundle_copy: Path) -> None:
    for name in ("golden.json", "golden.safetensors"):
        (bundle_copy / "golden" / name).unlink()
    update_manifest(bundle_copy, open_manifest(bundle_copy), ["golden/golden.json", "golden/golden.safetensors"])
    with pytest.raises(BundleError, match=r"no hash for golden/golden\.json"):
        run(bundle_copy)


def test_stages_that_golden_vectors_lack_are_not_run(bundle_copy: Path, small_model: Model) -> None:
    manifest = small_model.manifest
    cases = read_cases(small_model.bundle)
    assert absent_stages(cases, manifest) == []
    old = [case for case in cases if case.stage not in ("rgb", "ranking") and not case.stage.startswith("sampler_step")]
    assert absent_stages(old, manifest) == ["rgb", "sampler_step", "ranking"]
    second = manifest.model_copy(update={"graphs": manifest.graphs.model_copy(update={"rerank": manifest.graphs.text})})
    assert absent_stages(cases, second) == ["rerank"]

    def forget(header: Header, _: dict[str, Any]) -> None:
        header["cases"] = [case for case in header["cases"] if case["stage"] != "rgb"]

    edit(bundle_copy, forget)
    report = run(bundle_copy, backends=("onnx-cpu",))
    assert report.passed
    [rgb] = [result for result in report.results if result.stage == "rgb"]
    assert (rgb.status, rgb.host) == ("not_run", "vtr-runtime")
    assert "older than this stage; make them anew: vtr-conformance golden" in rgb.hint
