"""How fast is each tower, ours beside every peer, in one run?

    python benchmarks/throughput/run.py [--optimum-python optimum/bin/python] [--json out/throughput/result.json]

ViT-B/32 with random weights that all contestants share: time does not depend on them, and their outputs can be
compared. Each contestant lives in a process of its own. Round after round each runs its passes once, in turn; a round's
figure is the median of its passes, the table's the median of the rounds. Those that are compared alternate, the towers
in fp32, those below it, the text towers; their processes live at once, about 1.5 GB each, 12 GB in all. Needs the
package openvino and, for the optimum rows, an environment of its own, since optimum pins another transformers:

    python3.11 -m venv optimum && optimum/bin/pip install 'optimum[onnxruntime]' torch==2.14.1 torchvision==0.29.1
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click
import contestant as entries
from child import Child
from contestant import MODEL, Contestant
from graphs import ENVIRONMENT, Folder, export_optimum, export_ours, export_plain, make_weights, quantize_ours
from machine import describe_machine, image_tower_flops, product_rate
from results import Figure, figures
from tables import print_machine, print_missing, print_text, print_video

from vtr_runtime.console import SingleCli, note
from vtr_runtime.errors import UsageError

NO_OPTIMUM = f"give --optimum-python an interpreter where optimum-cli is installed: {ENVIRONMENT}"


@click.command(cls=SingleCli)
@click.option("-o", "--output", type=click.Path(path_type=Path), default="out/throughput", show_default=True)
@click.option("--ours", "bundles", multiple=True, metavar="NAME=BUNDLE", help="Bundles of ours; default: made here.")
@click.option("--optimum-python", type=click.Path(path_type=Path), help="An interpreter with optimum-cli beside it.")
@click.option("--optimum-onnx", type=click.Path(path_type=Path), help="What optimum-cli exported, instead.")
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True)
@click.option("--passes", type=click.IntRange(min=1), default=5, show_default=True, help="Timed in each round.")
@click.option("--threads", type=click.IntRange(min=1), default=os.cpu_count(), show_default=True)
@click.option("--only", metavar="WORD", multiple=True, help="Contestants whose name holds one of the words.")
@click.option("--quick", is_flag=True, help="One pass a round, nothing compiled by torch: does everything run?")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="A file for the figures and the machine.")
def main(
    output: Path,
    bundles: tuple[str, ...],
    optimum_python: Path | None,
    optimum_onnx: Path | None,
    rounds: int,
    passes: int,
    threads: int,
    only: tuple[str, ...],
    quick: bool,
    json_file: Path | None,
) -> None:
    """Time every contestant and print the tables."""
    if optimum_python and optimum_onnx:
        raise UsageError("--optimum-python makes the graph that --optimum-onnx gives; leave one of them out")
    if optimum_onnx and not optimum_onnx.is_file():
        raise UsageError(f"--optimum-onnx {optimum_onnx} does not exist; give the model.onnx that optimum-cli wrote")
    named = [_named_bundle(text) for text in bundles]
    machine = describe_machine(threads)
    folder = Folder(output)
    output.mkdir(parents=True, exist_ok=True)
    optimum, missing = _prepare(folder, optimum_python, optimum_onnx, ours_too=not named)
    chosen = named or [("fp32 graph", folder.bundle)]
    int8 = [] if named else entries.ours_int8(folder.int8)

    field = entries.products()
    field += entries.video_peers(folder.weights, folder.plain, optimum, missing)
    field += [row for name, bundle in chosen for row in entries.ours("video", name, bundle)]
    field += int8
    field += entries.text_peers(folder.checkpoint)
    field += [row for name, bundle in chosen for row in entries.ours("text", name, bundle)]
    field = [_unless_left_out(row, quick) for row in field if _is_wanted(row, only)]

    passes = 1 if quick else passes
    settings = f"median of {rounds} alternating rounds, {passes} timed in each, {threads} threads"
    children: list[Child] = []
    for name in ("video fp32", "video below fp32", "text"):
        group = [row for row in field if _group(row) == name]
        children += race(group, rounds=rounds, passes=passes, threads=threads, tokenizer=chosen[0][1]) if group else []
    _report(children, machine, settings, json_file)


def race(field: Sequence[Contestant], *, rounds: int, passes: int, threads: int, tokenizer: Path) -> list[Child]:
    """Start all, then run round after round; end all. Only one computes at any time."""
    children = []
    try:
        for row in field:
            note(f"{row.kind}: {row.name}, {row.precision}")
            children.append(Child(row, threads=threads, bundle=tokenizer))
        for number in range(rounds):
            note(f"round {number + 1} of {rounds}")
            for child in children:
                child.race(passes)
    finally:
        for child in children:
            child.close()
    return children


def _report(children: Sequence[Child], machine: dict[str, object], settings: str, json_file: Path | None) -> None:
    by_kind: dict[str, list[Figure]] = {
        kind: figures(child for child in children if child.contestant.kind == kind)
        for kind in ("product", "video", "text")
    }
    rates = {row.workload: product_rate(row.ms / 1000) for row in by_kind["product"]}
    flops = image_tower_flops(MODEL)
    missing = [(c.contestant.kind, f"{c.contestant.name}, {c.contestant.precision}", c.missing) for c in children]
    missing = [entry for entry in missing if entry[2]]
    print_machine(machine, rates)
    if by_kind["video"]:
        print_video(by_kind["video"], rates, flops, settings)
    if by_kind["text"]:
        from sentences import CAPTIONS

        print_text(by_kind["text"], len(CAPTIONS.read_text(encoding="utf-8").splitlines()), settings)
    print_missing(missing)
    if json_file is not None:
        content = {
            "machine": machine,
            "settings": settings,
            "product_flops_per_second": rates,
            "flops_per_frame": flops,
            "figures": [row.to_json() for kind in ("video", "text") for row in by_kind[kind]],
            "not_run": [dict(zip(("kind", "name", "reason"), entry, strict=True)) for entry in missing],
        }
        json_file.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _prepare(folder: Folder, python: Path | None, graph: Path | None, *, ours_too: bool) -> tuple[Path, str]:
    """Make what is not there. Returns optimum's graph, and why there is none."""
    logging.disable(logging.WARNING)  # open_clip warns that the weights are random; they are meant to be
    note(f"weights and graphs in {folder.root}")
    make_weights(folder)
    export_plain(folder)
    if ours_too:
        export_ours(folder)
        quantize_ours(folder)
    if graph is not None:
        return graph, ""
    if python is not None:
        export_optimum(folder, python)
    return folder.optimum, "" if folder.optimum.is_file() else NO_OPTIMUM


def _group(row: Contestant) -> str:
    """Who alternates with whom: those that a table compares. All at once would need twice the memory."""
    if row.kind == "text":
        return "text"
    return "video fp32" if row.precision == "fp32" else "video below fp32"


def _named_bundle(text: str) -> tuple[str, Path]:
    name, equals, path = text.partition("=")
    if not (name and equals and path):
        raise UsageError(f"--ours {text} is not NAME=BUNDLE; give for example --ours int8=out/int8")
    if not Path(path).is_dir():
        raise UsageError(f"--ours {text}: there is no folder {path}; give one that vtr-export wrote with -o")
    return name, Path(path)


def _is_wanted(row: Contestant, only: Sequence[str]) -> bool:
    text = f"{row.kind} {row.name} {row.precision}{' ours' if row.ours else ''}".lower()
    return row.kind == "product" or not only or any(word.lower() in text for word in only)


def _unless_left_out(row: Contestant, quick: bool) -> Contestant:
    return replace(row, missing="left out by --quick") if quick and row.engine == "compiled" else row


if __name__ == "__main__":
    sys.exit(main())
