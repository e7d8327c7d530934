"""Conformance as a child process: nothing is published before it passes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from vtr_runtime.errors import GateError, VtrError

NOT_MET = GateError.exit_status


def run_gates(
    bundle: Path, checkpoint: Path, *, data: str | None, failed: Path, say: Callable[[str], None] = lambda _: None
) -> str:
    """Run conformance on a finished bundle that is not published yet; `say` is told its table. Returns the verdict.

    GateError when a gate is not met: the report then lies in `failed`. A child process, because the memory that engines
    and PyTorch take comes back only with the process."""
    reports = bundle / "reports"
    command = [sys.executable, "-m", "vtr_conformance", "run", str(bundle), "--ckpt", str(checkpoint)]
    command += ["--report", str(reports), *(["--data", data] if data else [])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode not in (0, NOT_MET):
        last = (done.stderr.strip().splitlines() or ["it printed nothing"])[-1]
        raise VtrError(f"conformance ended with status {done.returncode} before it could judge: {last}")
    say(done.stdout.rstrip())
    verdict = _verdict(reports)
    if done.returncode == NOT_MET:
        shutil.rmtree(failed, ignore_errors=True)
        shutil.copytree(reports, failed)
        raise GateError(f"{verdict}; nothing was published, the report lies at {failed}/")
    return verdict


def _verdict(reports: Path) -> str:
    """The last line of the report says it in words."""
    last = (reports / "conformance.jsonl").read_text(encoding="utf-8").splitlines()[-1]
    return str(json.loads(last)["verdict"])
