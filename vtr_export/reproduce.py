"""A script for each step of an export, to run it again alone. What lay outside the bundle is asked for, not written."""

from __future__ import annotations

import shlex
from collections.abc import Container, Sequence
from pathlib import Path

from vtr_runtime.engines.options import given_options
from vtr_runtime.targets import ENGINE_OPTIONS, TARGETS

from .gates import NO_SPLIT
from .plan import ExportPlan

HEAD = "#!/usr/bin/env bash\n# {what}\nset -euo pipefail\n"
BUNDLE = 'BUNDLE="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"\n'
# Environment variables in place of paths.
ASKED = {
    "CKPT": ': "${CKPT:?set CKPT to the checkpoint, best.pt}"\n',
    "MODEL": ': "${MODEL:?set MODEL to the .json file of --open-clip}"\n',
    "WEIGHTS": ': "${WEIGHTS:?set WEIGHTS to the tag or file of --pretrained}"\n',
    "DATA": ': "${DATA:?set DATA to the evaluation set}"\n',
    "CALIBRATION": ': "${CALIBRATION:?set CALIBRATION to the calibration set}"\n',
    "TIMING_CACHE": ': "${TIMING_CACHE:?set TIMING_CACHE to the file that keeps kernel timings}"\n',
    "OUT": ': "${OUT:?set OUT to the bundle folder to write}"\n',
}


def write_scripts(reports: Path, plan: ExportPlan, backends: Sequence[str], *, own_checkpoint: bool) -> None:
    """Write `reports/reproduce/`: the export, its gates, and each engine.

    `own_checkpoint`: vtr-train wrote the plan's, so that conformance reads it; it knows no other."""
    folder = reports / "reproduce"
    folder.mkdir(parents=True)
    steps = {
        "1-export": ("the whole export", export_words(plan)),
        "2-gates": ("the gates, on the bundle as it is", gate_words(plan, backends, own_checkpoint=own_checkpoint)),
    }
    engines = [name for name in plan.targets if TARGETS[name].engine]
    for number, name in enumerate(engines, 3):
        words = ["vtr-runtime", "build", "$BUNDLE", "--target", name, *_engine_words(plan, TARGETS[name].options)]
        steps[f"{number}-build-{name}"] = (f"the engine of {TARGETS[name].title}", [*words, "--overwrite"])
    for name, (what, words) in steps.items():
        path = folder / f"{name}.sh"
        path.write_text(_script(what, words), encoding="utf-8")
        path.chmod(0o755)


def export_words(plan: ExportPlan) -> list[str]:
    """The command line of a plan, variables in place of paths."""
    words = ["vtr-export"]
    if plan.checkpoint is not None:
        words += ["--ckpt", "$CKPT"]
    else:
        name = "$MODEL" if Path(str(plan.open_clip)).suffix == ".json" else str(plan.open_clip)
        words += ["--open-clip", name, "--pretrained", "$WEIGHTS"]
    words += ["--frames", str(plan.frames), *(["--sampling", plan.sampling] if plan.sampling != "uniform" else [])]
    words += [word for target in plan.targets for word in ("--target", target)]
    words += ["--precision", plan.graphs.precision, "--opset", str(plan.graphs.opset)]
    flags = {"--rerank": plan.rerank, "--split-video": plan.split_video, "--debug-outputs": plan.debug_outputs}
    words += [flag for flag, given in flags.items() if given]
    if plan.search_islands or plan.islands is not None:
        words += ["--islands", "$BUNDLE/reports/islands.json"]
    words += ["--calibration", "$CALIBRATION"] if plan.calibration is not None and not plan.search_islands else []
    words += ["--eval-data", "$DATA"] if plan.eval_data is not None else []
    return [*words, *_engine_words(plan), "-o", "$OUT"]


def gate_words(plan: ExportPlan, backends: Sequence[str], *, own_checkpoint: bool) -> list[str]:
    words = ["vtr-conformance", "run", "$BUNDLE", *(["--ckpt", "$CKPT"] if own_checkpoint else [])]
    words += [word for backend in backends for word in ("--backend", backend)]
    words += ["--batch", str(plan.engine["batch"])] if plan.engine.get("batch") else []
    return words + (["--data", "$DATA" if plan.eval_data is not None else NO_SPLIT] if own_checkpoint else [])


def _engine_words(plan: ExportPlan, honoured: Container[str] = ENGINE_OPTIONS) -> list[str]:
    words = []
    for name in given_options(plan.engine):
        if name in honoured:
            value = "$TIMING_CACHE" if name == "timing_cache" else str(plan.engine[name])
            words += [f"--{name.replace('_', '-')}", *([] if plan.engine[name] is True else [value])]
    return words


def _script(what: str, words: Sequence[str]) -> str:
    asked = "".join(line for name, line in ASKED.items() if f"${name}" in words)
    line = " ".join(f'"{word}"' if word.startswith("$") else shlex.quote(word) for word in words)
    return HEAD.format(what=f"Runs again: {what}.") + BUNDLE + asked + line + "\n"
