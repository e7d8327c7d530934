"""docs/certify-a-host.md followed: its host in Python, and examples/node-host as the page says."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from vtr_conformance.hosts.protocol import PROTOCOL
from vtr_conformance.run import run
from vtr_runtime.stages import BEFORE_THE_GRAPHS, stage_of

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "certify-a-host.md").read_text()


def test_the_page_is_of_this_version() -> None:
    assert f"## The protocol, version {PROTOCOL}" in PAGE


def test_the_host_in_python_passes_the_stages_of_text(small_bundle: Path, tmp_path: Path) -> None:
    [code] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "host.py").write_text(code)
    report = run(small_bundle, commands=(shlex.join([sys.executable, str(tmp_path / "host.py")]),), batches=(1, 2))
    assert report.passed
    passed = {stage_of(r.stage).name for r in report.results if r.status == "pass"}
    assert passed == {"text_embedding", "sampler_step", "aligned", "corners", "invariance"}
    reasons = {stage_of(r.stage).name: r.hint for r in report.results if r.status == "not_run"}
    assert reasons["ids"] == "this host runs graphs alone"
    assert reasons["video_embedding"] == reasons["corners"] == "the host does not run the graph video"


@pytest.mark.long
def test_the_host_in_node_passes_the_embedding_stages(
    small_bundle: Path, small_checkpoint: Path, tmp_path: Path
) -> None:
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("Node.js is not installed")
    folder = tmp_path / "node-host"
    shutil.copytree(ROOT / "examples" / "node-host", folder, ignore=shutil.ignore_patterns("node_modules"))
    done = subprocess.run(
        ["npm", "install", "--ignore-scripts"], cwd=folder, capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"npm cannot install onnxruntime-node here: {done.stderr[-200:]}")
    report = run(small_bundle, checkpoint=small_checkpoint, commands=(f"node {folder / 'host.mjs'}",))
    mine = [result for result in report.results if result.host == "node"]
    missing = {result.stage for result in mine if result.status == "not_run"}
    assert {result.status for result in mine} == {"pass", "not_run"}
    assert missing == BEFORE_THE_GRAPHS
    assert {stage_of(result.stage).name for result in mine} - missing == {
        "text_embedding",
        "sampler_step",
        "aligned",
        "frame_embeddings",
        "video_embedding",
        "corners",
        "invariance",
        "ranking",
        "retrieval",
    }
    assert report.passed
    assert [host.version for host in report.hosts] == ["1.30.0"]
