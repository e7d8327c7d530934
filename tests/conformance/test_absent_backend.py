"""A backend that this machine does not have proves nothing, and is no failure either."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from vtr_conformance.cli import main
from vtr_conformance.run import run
from vtr_runtime.engines.device import read_device
from vtr_runtime.stages import BEFORE_THE_GRAPHS, NO_PROOF

pytestmark = pytest.mark.skipif(read_device() is not None, reason="this machine has a GPU")


def test_it_is_not_run_with_the_reason(small_bundle: Path) -> None:
    report = run(small_bundle, backends=("trt", "onnx-cuda", "onnx-cpu"), batches=(1, 2))
    assert report.passed
    for name in ("trt", "onnx-cuda"):
        mine = [result for result in report.results if result.backend == name]
        assert {result.stage for result in mine if result.status == "pass"} == set(BEFORE_THE_GRAPHS)
        missing = [result for result in mine if result.stage not in NO_PROOF]
        assert {result.status for result in missing} == {"not_run"}
        assert {result.hint for result in missing} == {
            f"backend {name} needs an NVIDIA GPU with its driver, and no GPU 0 was found; "
            "use --backend onnx-cpu or openvino here"
        }


def test_alone_it_is_no_proof(small_bundle: Path) -> None:
    done = CliRunner().invoke(main, ["run", str(small_bundle), "--backend", "trt-rtx", "--batch", "1:1:2"])
    assert done.exit_code == 3
    assert "nothing was checked" in done.stdout
    assert "NOT RUN" in done.stdout
