"""Conformance as a child process: nothing is published before it passes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vtr_runtime.errors import GateError, VtrError


@dataclass(frozen=True)
class Verdict:
    """What conformance said of a bundle; `report` is its JSON."""

    text: str
    report: dict[str, Any]

    def worst(self, stage: str) -> float | None:
        """The largest difference measured in a stage."""
        found = [
            float(result["measured"])
            for result in self.report["results"]
            if result["stage"] == stage and result["measured"] is not None
        ]
        return max(found, default=None)


def run_gates(bundle: Path, checkpoint: Path, *, data: str | None, failed: Path) -> Verdict:
    """Run conformance on a finished bundle that is not published yet. GateError leaves the report in `failed`.

    A child process, because the memory that engines and PyTorch take comes back only with the process."""
    reports = bundle / "reports"
    command = [sys.executable, "-m", "vtr_conformance", "run", str(bundle), "--ckpt", str(checkpoint)]
    command += ["--report", str(reports), "--json", *(["--data", data] if data else [])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        report = json.loads(done.stdout)
    except ValueError:
        last = (done.stderr.strip().splitlines() or ["it printed nothing"])[-1]
        raise VtrError(f"conformance ended with status {done.returncode} before it could judge: {last}") from None
    if not report["passed"]:
        shutil.rmtree(failed, ignore_errors=True)
        shutil.copytree(reports, failed)
        raise GateError(f"{report['verdict']}; nothing was published, the report lies at {failed}/")
    return Verdict(report["verdict"], report)
