"""A plan is checked before anything begins: what contradicts itself or does not exist has a sentence of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from vtr_export.cli import main
from vtr_export.plan import ExportPlan
from vtr_runtime.errors import UsageError
from vtr_runtime.targets import ENGINE_OPTIONS, TARGETS


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """Plans look whether it is there, not what it is."""
    (tmp_path / "best.pt").write_bytes(b"weights")
    return tmp_path / "best.pt"


def vtr_export(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--target trt --sm 89", "--sm is not for target trt: it builds for the GPU that is there"),
        ("--target trt-rtx --timing-cache x", "--timing-cache is not for target trt-rtx: TensorRT-RTX times no"),
        ("--target trt-rtx --version-compatible", "--version-compatible is not for target trt-rtx"),
        ("--target trt-rtx --hardware-compatible ampere+", "--hardware-compatible is not for target trt-rtx"),
        ("--target openvino --precision fp16", "target openvino has no fp16: its CPU plug-in"),
        ("--target openvino --batch 1:2:4", "--batch is not for target openvino: it is no TensorRT engine"),
        ("--batch 1:2:4", "--batch is not for target onnx: its graphs take every batch"),
        ("--optimization-level 0", "--optimization-level is not for target onnx"),
        ("--target triton --workspace 1G", "--workspace is not for target triton"),
        ("--target onnx --target openvino --precision bf16", "export two bundles"),
        ("--target onnx --target trt", "say which with --precision"),
        ("--target trt --opset 23", "takes at most opset 20"),
        ("--opset 17", "--opset 17 is not made here; choose from 18, 20, 23"),
        ("--precision fp8", "'fp8' is not one of 'fp32', 'fp16', 'bf16', 'int8'"),
        ("--target trt --batch 4:2:1", "--batch '4:2:1' does not rise from 1"),
        ("--target trt --workspace much", "--workspace 'much' is no size"),
        ("--target trt-rtx --sm ada", "--sm 'ada' is no list of capabilities"),
        ("--search-islands", "--search-islands is for graphs in fp16 or bf16, and these are fp32; leave it out"),
        ("--islands x.json", "--islands is for graphs in fp16 or bf16, and these are fp32"),
        ("--precision fp16 --islands x.json", "--islands x.json does not exist; give the list that --search-islands"),
        ("--precision fp16 --islands x.json --search-islands", "leave one of them out"),
        ("--target openvino --precision bf16 --search-islands", "these are fp32"),
        ("--precision int8 --search-islands --eval-data .", "--search-islands is for graphs in fp16 or bf16"),
        ("--precision int8", "--precision int8 is judged by the R@1 that it loses: give a data set with --eval-data"),
        ("--precision int8 --eval-data nowhere", "--eval-data nowhere does not exist"),
        ("--calibration .", "--calibration is for --precision int8 and --search-islands; leave it out"),
        ("--precision fp16 --calibration .", "--calibration is for --precision int8 and --search-islands"),
        ("--precision fp16 --search-islands --calibration nowhere", "--calibration nowhere does not exist"),
        ("--pretrained openai", "--pretrained goes with --open-clip"),
        ("--frames 0", "0 is not in the range x>=1"),
    ],
)
def test_what_cannot_be_honoured_is_refused(checkpoint: Path, tmp_path: Path, arguments: str, words: str) -> None:
    done = vtr_export("--ckpt", checkpoint, *arguments.split(), "-o", tmp_path / "bundle")
    assert done.exit_code == 2
    assert words in " ".join(done.stderr.split())
    assert "Traceback" not in done.output
    assert list(tmp_path.iterdir()) == [checkpoint]


def test_an_option_that_one_of_the_targets_honours_is_taken(checkpoint: Path, tmp_path: Path) -> None:
    plan = ExportPlan(
        output=tmp_path / "bundle",
        checkpoint=checkpoint,
        targets=("onnx", "trt-rtx"),
        precision="fp16",
        engine={"sm": "89", "batch": "1:2:4"},
    )
    plan.check()
    assert plan.build_options.capabilities == ("89",)


def test_a_folder_that_is_not_there_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    done = vtr_export("--ckpt", checkpoint, "-o", tmp_path / "none" / "bundle")
    assert (done.exit_code, "mkdir -p" in done.stderr) == (2, True)


def test_a_dry_run_prints_what_would_be_made(checkpoint: Path, tmp_path: Path) -> None:
    words = ["--target", "trt-rtx", "--precision", "bf16", "--rerank", "--sm", "86,89", "--dry-run"]
    done = vtr_export("--ckpt", checkpoint, *words, "-o", tmp_path / "bundle")
    assert done.exit_code == 0, done.stderr
    assert list(tmp_path.iterdir()) == [checkpoint]
    said = " ".join(done.stdout.split())
    for part in ("trt-rtx", "bf16", "23", TARGETS["trt-rtx"].makes, TARGETS["trt-rtx"].runs_on):
        assert part in said


def test_a_dry_run_in_json_is_the_manifests_own_record(checkpoint: Path, tmp_path: Path) -> None:
    cache = tmp_path / "times.cache"
    words: list[Any] = ["--target", "trt", "--batch", "1:2:4", "--strip", "--dry-run", "--json", "--timing-cache"]
    done = vtr_export("--ckpt", checkpoint, *words, cache, "-o", tmp_path / "bundle")
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout) == {
        "source": "checkpoint",
        "targets": ["trt"],
        "precision": "fp16",
        "graph_precision": "fp16",
        "opset": 20,
        "opset_reason": TARGETS["trt"].precisions["fp16"].reason,
        "rerank": False,
        "split_video": False,
        "debug_outputs": False,
        "engine": {"batch": "1:2:4", "timing_cache": "times.cache", "strip": "True"},
    }


def test_a_hint_is_not_written_into_the_graphs(checkpoint: Path, tmp_path: Path) -> None:
    plan = ExportPlan(output=tmp_path / "x", checkpoint=checkpoint, targets=("openvino",), precision="bf16")
    plan.check()
    assert (plan.settings["precision"], plan.settings["graph_precision"]) == ("bf16", "fp32")


def test_evaluation_data_may_be_a_benchmark(checkpoint: Path, tmp_path: Path) -> None:
    def plan(spec: str) -> ExportPlan:
        return ExportPlan(output=tmp_path / "x", checkpoint=checkpoint, eval_data=spec)

    plan(f"msrvtt-1ka:{tmp_path}?subset=yes").check()
    with pytest.raises(UsageError, match=r"--eval-data msrvtt-1ka:none does not exist; .* or NAME:DIR"):
        plan("msrvtt-1ka:none").check()
    with pytest.raises(UsageError, match="did you mean msrvtt-1ka"):
        plan(f"msrvt-1ka:{tmp_path}").check()


def test_exactly_one_source(checkpoint: Path, tmp_path: Path) -> None:
    for given in ({}, {"checkpoint": checkpoint, "open_clip": "RN50"}):
        with pytest.raises(UsageError, match="give either --ckpt"):
            ExportPlan(output=tmp_path / "x", **given).check()  # type: ignore[arg-type]
    ExportPlan(output=tmp_path / "x", open_clip="RN50", pretrained="openai").check()


def test_help_names_every_target_and_option() -> None:
    said = " ".join(vtr_export("--help").stdout.split())
    for name in (*TARGETS, *(f"--{option.replace('_', '-')}" for option in ENGINE_OPTIONS)):
        assert name in said
