"""`vtr-runtime build` as a user meets it on the device: what it writes, and every way in which it must refuse."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from vtr_runtime.cli import main
from vtr_runtime.engines import read_record
from vtr_runtime.targets import TARGETS


def build(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["build", *(str(argument) for argument in arguments)])


@pytest.mark.parametrize("target", [name for name, target in TARGETS.items() if target.engine])
def test_every_target_with_an_engine_is_offered(target: str) -> None:
    done = build("--help")
    assert done.exit_code == 0
    assert target in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--target trt --sm 89", "--sm is not for target trt: it builds for the GPU that is there; trt-rtx builds for"),
        ("--target trt-rtx --timing-cache x", "--timing-cache is not for target trt-rtx"),
        ("--target openvino --batch 1:2:4", "--batch is not for target openvino: it is no TensorRT engine"),
        ("--target openvino --optimization-level 0", "--optimization-level is not for target openvino"),
        ("--target trt-rtx --sm ada", "--sm 'ada' is no list of capabilities"),
        ("--target trt-rtx --batch 4:2:1", "does not rise from 1"),
        ("--target trt-rtx --workspace 1", "--workspace '1' is no size"),
        ("--target trt-rtx --sm 61", "--sm 61 is not built by"),
        ("--target triton", "'triton' is not one of 'trt', 'trt-rtx', 'openvino'"),
        ("", "Missing option '--target'"),
    ],
)
def test_what_a_target_has_not_is_refused_before_anything_begins(bundle_copy: Path, arguments: str, words: str) -> None:
    done = build(bundle_copy, *arguments.split())
    assert done.exit_code == 2
    assert words in " ".join(done.stderr.split())
    assert not (bundle_copy / "engines").exists()


def test_no_bundle_is_one_sentence(tmp_path: Path) -> None:
    done = build(tmp_path, "--target", "openvino")
    assert done.exit_code == 1
    assert done.stderr.startswith("error: ")
    assert "is not a bundle" in done.stderr


def test_trt_without_its_library_or_a_gpu_says_so(bundle_copy: Path) -> None:
    done = build(bundle_copy, "--target", "trt")
    assert done.exit_code == 1
    assert done.stderr.startswith("error: ")
    assert "needs tensorrt, which is not installed" in done.stderr or "NVIDIA GPU" in done.stderr
    assert "Traceback" not in done.output


def test_openvino_from_the_command_line(bundle_copy: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    done = build(bundle_copy, "--target", "openvino", "--engine-dir", elsewhere, "--json")
    assert done.exit_code == 0, done.stderr
    record = json.loads(done.stdout)
    assert record == json.loads(read_record(elsewhere / "openvino-fp32").model_dump_json())
    assert "video: OpenVINO IR, compiled in f32" in done.stderr
    assert not (bundle_copy / "engines").exists()

    again = build(bundle_copy, "--target", "openvino", "--engine-dir", elsewhere)
    assert again.exit_code == 2
    assert "--overwrite" in again.stderr
    replaced = build(bundle_copy, "--target", "openvino", "--engine-dir", elsewhere, "--overwrite")
    assert replaced.exit_code == 0, replaced.stderr
    assert "video.bin" in replaced.stdout
    assert [path.name for path in elsewhere.iterdir()] == ["openvino-fp32"]


def test_rtx_from_the_command_line(bundle_copy: Path) -> None:
    profiles = ["--batch", "1:2:4", "--text-batch", "1:2:4"]
    done = build(bundle_copy, "--target", "trt-rtx", "--sm", 89, *profiles, "--json")
    assert done.exit_code == 0, done.stderr
    record = json.loads(done.stdout)
    assert (record["id"], record["capabilities"]) == ("trt-rtx-fp32-sm89", ["89"])
    assert (bundle_copy / "engines" / "trt-rtx-fp32-sm89" / "video.plan").stat().st_size > 0


def test_a_build_needs_no_torch(bundle_copy: Path) -> None:
    """Device images have none."""
    code = (
        "import sys\n"
        "for name in ('torch', 'onnx', 'vtr_export'):\n"
        "    sys.modules[name] = None\n"
        "from vtr_runtime.cli import main\n"
        "main(sys.argv[1:])\n"
    )
    command = [sys.executable, "-c", code, "build", str(bundle_copy), "--target", "openvino"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    shutil.rmtree(bundle_copy / "engines")
