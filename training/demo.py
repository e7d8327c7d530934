"""`make demo`: from generated clips to search results, by the project's own commands, each printed before it runs.

    python training/demo.py out/demo [--clips 3200] [--steps 600]

Leaves data/, best.pt (mstdt + dits), mean/best.pt, bundle/, bundle-bf16/, bundle-rtx/, index.vtri, results.png and
summary.json in the folder.
Repeatable: the data set, its decoded frames and nothing else are kept for the next run."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click

from vtr_runtime.console import table
from vtr_runtime.openvino import cpu_has_bf16

RECIPES = Path(__file__).parent / "recipes"
# The bundle that the demo goes on with, and one each for a CPU with bf16 and for RTX GPUs, built here without one.
EXPORTS = {
    "bundle": ["--target", "onnx", "--target", "openvino"],
    "bundle-bf16": ["--target", "openvino", "--precision", "bf16"],
    "bundle-rtx": ["--target", "trt-rtx", "--precision", "fp16"],
}
# Three of the motions, worded as a person would; colours and shapes are picked from the test split.
QUERIES = 3
TOP = 5


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--clips", type=int, help="Training clips instead of 3,200: for trying the way, not for a model.")
@click.option("--steps", type=int, help="Steps of each training instead of the recipes': likewise.")
def main(folder: Path, clips: int | None, steps: int | None) -> None:
    """Run the demo into FOLDER."""
    start = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    data, bundle, index = folder / "data", folder / "bundle", folder / "index.vtri"
    made = [folder / name for name in EXPORTS]
    for stale in (folder / "run", folder / "mean", *made, index, folder / "videos.parquet"):
        shutil.rmtree(stale) if stale.is_dir() else stale.unlink(missing_ok=True)

    if not (data / "data.jsonl").is_file():
        run("vtr-train", "demo-data", data, *(["--clips", clips] if clips else []))
    fit = ["--set", f"data.spec={data}", "--set", f"data.cache={folder / 'cache'}"]
    if steps:
        fit += ["--set", f"steps={steps}"]
    run("vtr-train", "fit", RECIPES / "demo-mstdt-dits.toml", *fit, "-o", folder / "run")
    run("vtr-train", "fit", RECIPES / "demo-mean.toml", *fit, "-o", folder / "mean")
    shutil.copyfile(folder / "run" / "best.pt", folder / "best.pt")
    for name, options in EXPORTS.items():
        if name == "bundle-bf16" and not cpu_has_bf16():
            print(f"\n{name}: NOT RUN, this CPU has no bf16")
            continue
        run("vtr-export", "--ckpt", folder / "best.pt", *options, "--eval-data", data, "-o", folder / name)
    test, queries = test_clips(data)
    paths = folder / "test-clips"
    link_clips(test, paths)
    run("vtr-runtime", "embed", bundle, paths, "-o", folder / "videos.parquet")
    run("vtr-runtime", "index", bundle, folder / "videos.parquet", "-o", index)
    run("vtr-runtime", "search", bundle, index, *queries, "-k", TOP, "--sheet", folder / "results.png")
    summary = summarise(folder, data, queries)
    summary["seconds"] = round(time.monotonic() - start)
    (folder / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    print_summary(summary, folder)


def run(program: str, *arguments: object) -> None:
    """Run a command of the project with its output shown; stop the demo where it fails."""
    words = [program, *map(str, arguments)]
    print(f"\n$ {shlex.join(words)}", flush=True)
    status = subprocess.run(_installed(words), check=False).returncode
    if status != 0:
        sys.exit(status)


def ask(program: str, *arguments: object) -> Any:
    """Run a command with --json and give its answer."""
    words = _installed([program, *map(str, arguments), "--json"])
    return json.loads(subprocess.run(words, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout)


def _installed(words: list[str]) -> list[str]:
    return [str(Path(sys.executable).parent / words[0]), *words[1:]]


def test_clips(data: Path) -> tuple[list[Path], list[str]]:
    """The clips of the test split, and one caption each of a few of its groups, far apart."""
    lines = [json.loads(line) for line in (data / "data.jsonl").read_text(encoding="utf-8").splitlines()]
    test = [line for line in lines if line["split"] == "test"]
    grouped = [line for line in test if line.get("group")]
    chosen = grouped[:: max(1, len(grouped) // QUERIES)][:QUERIES]
    return [data / line["video"] for line in test], [line["captions"][0] for line in chosen]


def link_clips(clips: list[Path], folder: Path) -> None:
    """A folder with the test clips only, for a search that the training never saw."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for clip in clips:
        os.link(clip, folder / clip.name)


def summarise(folder: Path, data: Path, queries: list[str]) -> dict[str, Any]:
    heads = {"mstdt + dits": folder / "best.pt", "mean": folder / "mean" / "best.pt"}
    conformance = (folder / "bundle" / "reports" / "conformance.jsonl").read_text(encoding="utf-8").splitlines()
    results = [line for line in map(json.loads, conformance) if "status" in line]
    return {
        "heads": {name: ask("vtr-train", "evaluate", path, "--data", data) for name, path in heads.items()},
        "gates": {status: sum(line["status"] == status for line in results) for status in ("pass", "fail", "not_run")},
        "queries": queries,
    }


def print_summary(summary: dict[str, Any], folder: Path) -> None:
    rows = []
    for name, result in summary["heads"].items():
        groups = result["within_groups_r1"]
        shares = [f"{group['t2v']:.2f}" for group in groups.values()]
        rows.append((name, f"{result['t2v']['R@1']:.1f}", f"{result['Rsum']:.1f}", *shares))
    kinds = list(groups)
    rows.append(("ceiling without order", "", "", *[f"{group['order_blind']:.2f}" for group in groups.values()]))
    columns = ("head", "R@1 %", "Rsum", *[f"order, {kind}" for kind in kinds])
    table("Test split: whole gallery, and order-only groups (share found, text to video)", columns, rows)
    print(f"gates: {summary['gates']}\npictures: {folder / 'results.png'}\ndone in {summary['seconds']} s")


if __name__ == "__main__":
    main()
