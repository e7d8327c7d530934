"""Conformance as a child process: nothing is published before it passes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vtr_runtime.errors import GateError, VtrError

NOT_MET = GateError.exit_status
# The split that conformance would generate says little of a model for other videos, and in fp16, which the gates run
# node by node on the CPU, it would cost an export minutes.
NO_SPLIT = "none"


@dataclass(frozen=True)
class GateResult:
    """`unproved` is what of the bundle's precision no backend has shown, `line` the verdict with date, hosts and
    figures for the README. `results` and `splits` are the report's."""

    verdict: str
    unproved: str
    results: tuple[dict[str, Any], ...] = ()
    splits: tuple[dict[str, Any], ...] = ()
    line: str = ""

    def worst(self, stage: str) -> str:
        """The largest that was measured at a stage by a host other than PyTorch itself, with its unit."""
        found = [row for row in self.results if row["stage"] == stage and row["host"] != "pytorch"]
        numbers = [row for row in found if isinstance(row["measured"], float)]
        if not numbers:
            return "not run"
        row = max(numbers, key=lambda row: float(row["measured"]))
        return f"{row['unit']} {row['measured']:.2g}"

    def retrieval(self) -> str:
        """R@1 of each host beside PyTorch's."""
        return "; ".join(
            f"{split['host']} {split['backend']} R@1 {split['t2v']['figures']['R@1']:.1f} "
            f"(PyTorch {split['t2v']['reference']['R@1']:.1f})"
            for split in self.splits
        )


def run_gates(
    bundle: Path,
    checkpoint: Path,
    *,
    data: str | None,
    failed: Path,
    backends: Sequence[str] = (),
    batch: str | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> GateResult:
    """Run conformance on a finished bundle that is not published yet; `say` is told its table.

    `backends` as vtr-conformance's --backend, its default where none is given; `batch` is the profile, MIN:OPT:MAX.
    GateError when a gate is not met or no backend proved the bundle's precision: the report then lies in `failed`.
    A child process, because the memory that engines and PyTorch take comes back only with the process."""
    reports = bundle / "reports"
    command = [sys.executable, "-m", "vtr_conformance", "run", str(bundle), "--ckpt", str(checkpoint)]
    command += ["--report", str(reports), "--data", data or NO_SPLIT, *(["--batch", batch] if batch else [])]
    command += [argument for backend in backends for argument in ("--backend", backend)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode not in (0, NOT_MET):
        last = (done.stderr.strip().splitlines() or ["it printed nothing"])[-1]
        raise VtrError(f"conformance ended with status {done.returncode} before it could judge: {last}")
    say(done.stdout.rstrip())
    result = _read_report(reports)
    if done.returncode == NOT_MET or result.unproved:
        shutil.rmtree(failed, ignore_errors=True)
        shutil.copytree(reports, failed)
        raise GateError(f"{result.verdict}; nothing was published, the report lies at {failed}/")
    return result


def _read_report(reports: Path) -> GateResult:
    lines = (reports / "conformance.jsonl").read_text(encoding="utf-8").splitlines()
    *rows, last = map(json.loads, lines)
    results = tuple(row for row in rows if "stage" in row)
    splits = tuple(row["retrieval"] for row in rows if "retrieval" in row)
    return GateResult(str(last["verdict"]), str(last["unproved"]), results, splits, str(last["line"]))
