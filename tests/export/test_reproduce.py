"""The scripts of an export: each step with its own options, no path of this machine, and lines that the shell takes."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from vtr_export.cli import main
from vtr_export.plan import ExportPlan
from vtr_export.reproduce import write_scripts

SECRET = Path("/secret place")


def scripts(tmp_path: Path, *, backends: tuple[str, ...] = (), own: bool = True, **plan: Any) -> dict[str, str]:
    source = {} if "open_clip" in plan else {"checkpoint": SECRET / "best.pt"}
    write_scripts(tmp_path, ExportPlan(output=SECRET / "bundle", **source, **plan), backends, own_checkpoint=own)
    files = sorted((tmp_path / "reproduce").iterdir())
    assert all(file.stat().st_mode & 0o111 == 0o111 for file in files)
    found = {file.name: file.read_text() for file in files}
    for name, text in found.items():
        assert str(SECRET) not in text, name
        subprocess.run(["bash", "-n"], input=text, text=True, check=True)
    return found


def words(script: str) -> list[str]:
    return shlex.split(script.splitlines()[-1])


def asked(script: str) -> set[str]:
    return {line[5:].partition(":?")[0] for line in script.splitlines() if line.startswith(': "${')}


def test_a_plain_export_has_two_steps(tmp_path: Path) -> None:
    found = scripts(tmp_path)
    assert list(found) == ["1-export.sh", "2-gates.sh"]
    first = "vtr-export --ckpt $CKPT --frames 12 --target onnx --precision fp32 --opset 20 -o $OUT"
    assert words(found["1-export.sh"]) == first.split()
    gates = ["vtr-conformance", "run", "$BUNDLE", "--ckpt", "$CKPT", "--data", "none"]
    assert words(found["2-gates.sh"]) == gates
    found = scripts(tmp_path / "fps1", sampling="fps1")
    assert words(found["1-export.sh"]) == first.replace("--frames 12", "--frames 12 --sampling fps1").split()
    assert words(found["2-gates.sh"]) == gates
    assert asked(found["1-export.sh"]) == {"CKPT", "OUT"}
    assert asked(found["2-gates.sh"]) == {"CKPT"}


def test_every_path_is_asked_for(tmp_path: Path) -> None:
    found = scripts(
        tmp_path,
        targets=("trt", "trt-rtx"),
        rerank=True,
        split_video=True,
        debug_outputs=True,
        islands=SECRET / "islands.json",
        eval_data=str(SECRET / "data.jsonl"),
        engine={
            "batch": "1:2:4",
            "sm": "86,89",
            "timing_cache": SECRET / "times.cache",
            "strip": True,
            "refittable": False,
            "optimization_level": 0,
            "workspace": None,
        },
    )
    assert asked(found["1-export.sh"]) == {"CKPT", "DATA", "TIMING_CACHE", "OUT"}
    line = words(found["1-export.sh"])
    for part in (
        ["--target", "trt", "--target", "trt-rtx", "--precision", "fp16", "--opset", "20"],
        ["--rerank", "--split-video", "--debug-outputs", "--islands", "$BUNDLE/reports/islands.json"],
        ["--eval-data", "$DATA"],
        ["--timing-cache", "$TIMING_CACHE", "--strip", "--optimization-level", "0", "-o", "$OUT"],
    ):
        assert " ".join(part) in " ".join(line)
    assert "--refittable" not in line
    assert "--workspace" not in line
    assert words(found["2-gates.sh"])[3:] == ["--ckpt", "$CKPT", "--batch", "1:2:4", "--data", "$DATA"]
    # Each engine gets what its target honours.
    trt, rtx = words(found["3-build-trt.sh"]), words(found["4-build-trt-rtx.sh"])
    assert trt[:5] == [*rtx[:4], "trt"] == ["vtr-runtime", "build", "$BUNDLE", "--target", "trt"]
    assert ("--timing-cache" in trt, "--timing-cache" in rtx) == (True, False)
    assert ("--sm" in trt, "--sm" in rtx) == (False, True)
    assert trt[-1] == rtx[-1] == "--overwrite"


def test_a_search_is_not_repeated_but_its_list_is_used(tmp_path: Path) -> None:
    calibration = str(SECRET / "data.jsonl")
    line = words(scripts(tmp_path, targets=("trt",), search_islands=True, calibration=calibration)["1-export.sh"])
    assert "$BUNDLE/reports/islands.json" in line
    assert not {"--search-islands", "--calibration"} & set(line)


def test_int8_asks_for_its_calibration(tmp_path: Path) -> None:
    found = scripts(tmp_path, precision="int8", calibration=str(SECRET / "data.jsonl"))["1-export.sh"]
    assert "--calibration $CALIBRATION" in " ".join(words(found))
    assert "CALIBRATION" in asked(found)


def test_a_checkpoint_that_conformance_cannot_read_is_left_out(tmp_path: Path) -> None:
    found = scripts(tmp_path, own=False, eval_data="data.jsonl", backends=("openvino", "onnx-cpu"))
    assert words(found["2-gates.sh"]) == (
        ["vtr-conformance", "run", "$BUNDLE", "--backend", "openvino", "--backend", "onnx-cpu"]
    )


@pytest.mark.parametrize(("name", "want"), [("RN50", "RN50"), (f"{SECRET}/small.json", "$MODEL")])
def test_stock_clip(tmp_path: Path, name: str, want: str) -> None:
    found = scripts(tmp_path, open_clip=name, pretrained=f"{SECRET}/weights.pt", own=False)
    assert words(found["1-export.sh"])[1:5] == ["--open-clip", want, "--pretrained", "$WEIGHTS"]
    assert asked(found["1-export.sh"]) == {"WEIGHTS", "OUT"} | ({"MODEL"} if want == "$MODEL" else set())
    assert "--ckpt" not in words(found["2-gates.sh"])


def test_the_exports_line_is_one_that_the_command_takes(tmp_path: Path, small_checkpoint: Path) -> None:
    """The words of the script, through the command's own parser."""
    found = scripts(tmp_path, targets=("trt-rtx",), precision="bf16", engine={"sm": "86,89", "text_batch": "1:2:4"})
    given = {"$CKPT": str(small_checkpoint), "$OUT": str(tmp_path / "bundle")}
    line = [given.get(word, word) for word in words(found["1-export.sh"])[1:]]
    done = CliRunner().invoke(main, [*line, "--dry-run"])
    assert done.exit_code == 0, done.stderr
