"""Is the C++ runtime as fast as the Python runtime and PyTorch? Tokenization, one query, frames and files, in one run.

    make cpp && python benchmarks/cpp/run.py [VIDEOS...] [--json out/cpp/speed.json]

Without --bundle and --checkpoint it is the model of benchmarks/throughput, made where it is not there yet: ViT-B/32
with random weights and DITS of 10 steps; time does not depend on weights. Round after round vtr-bench, the Python
runtime and PyTorch (peer.py) do the same work on the same sentences, files and sizes of frames, each in a process of
its own that ends before the next one starts. A round's figure is the median of its calls, the table's that of the
rounds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import click

from vtr_runtime.bundle import open_bundle
from vtr_runtime.console import SingleCli, note, table
from vtr_runtime.errors import UsageError
from vtr_runtime.machine import machine_lines

sys.path.append(str(Path(__file__).parents[1] / "throughput"))
from machine import describe_machine
from sentences import sentences

HERE = Path(__file__).parent
TOOL = HERE.parents[1] / "out" / "cpp" / "release" / "tools" / "vtr-bench"
SENTENCES = 1000
# Rounds of figures of one contestant, by what was done.
Rounds = list[Mapping[str, Mapping[str, float]]]


@click.command(cls=SingleCli)
@click.argument("videos", nargs=-1, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--bundle", type=click.Path(path_type=Path), help="Another bundle, together with --checkpoint.")
@click.option("--checkpoint", type=click.Path(path_type=Path), help="The one that --bundle was exported from.")
@click.option("--tool", type=click.Path(path_type=Path), default=TOOL, help="vtr-bench; default: that of `make cpp`.")
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True)
@click.option("--seconds", type=click.FloatRange(min=0.01), default=2.0, show_default=True, help="Of each figure.")
@click.option("--threads", type=click.IntRange(min=1), default=os.cpu_count(), show_default=True)
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="A file for the figures and the machine.")
def main(
    videos: tuple[Path, ...],
    bundle: Path | None,
    checkpoint: Path | None,
    tool: Path,
    rounds: int,
    seconds: float,
    threads: int,
    json_file: Path | None,
) -> None:
    """Time the three and print the table."""
    if not tool.is_file():
        raise UsageError(f"there is no {tool}; run make cpp first, or give --tool")
    if (bundle is None) != (checkpoint is None):
        raise UsageError("--bundle and --checkpoint belong together: PyTorch runs what the bundle was exported from")
    machine = describe_machine(threads)
    if bundle is None or checkpoint is None:
        from graphs import standard_folder  # imports PyTorch

        folder = standard_folder()
        bundle, checkpoint = folder.bundle, folder.checkpoint
    with TemporaryDirectory() as scratch:
        texts = Path(scratch) / "texts.txt"
        texts.write_text("".join(f"{text}\n" for text in islice(sentences(), SENTENCES)), encoding="utf-8")
        given = [bundle, *videos, "--texts", texts, "--threads", threads, "--seconds", seconds]
        peer = [sys.executable, HERE / "peer.py"]
        commands: dict[str, Sequence[object]] = {
            "C++": [tool, *given, "--spin", "--json"],  # as Python's and PyTorch's threads do
            "Python": [*peer, "python", *given],
            "PyTorch": [*peer, "pytorch", *given, "--checkpoint", checkpoint],
        }
        found: dict[str, Rounds] = {name: [] for name in commands}
        for number in range(rounds):
            for name, command in commands.items():
                note(f"round {number + 1} of {rounds}: {name}")
                found[name].append(run(command, threads))
    work = f"{SENTENCES} sentences, frames of 1280 x 720"
    name = open_bundle(bundle).manifest.name
    title = f"{name}; {work}; {threads} threads, median of {rounds} rounds"
    report(found, machine, title, json_file)


def run(command: Sequence[object], threads: int) -> dict[str, dict[str, float]]:
    """What one process printed: figures by what was done."""
    # Read by OpenMP when a process loads it.
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    words = [str(word) for word in command]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, env=environment, check=False)
    if done.returncode:
        raise click.ClickException(
            f"{Path(words[0]).name} ended with status {done.returncode}; its reason stands above"
        )
    rows: list[dict[str, Any]] = [json.loads(line) for line in done.stdout.splitlines()]
    return {row.pop("what"): row for row in rows}


def report(found: Mapping[str, Rounds], machine: dict[str, Any], title: str, json_file: Path | None) -> None:
    """Rates of tokenization, milliseconds of the rest, and how many times as fast C++ is."""
    for line in machine_lines(machine):
        click.echo(line)
    lines = []
    for what in found["C++"][0]:
        unit = "per_second" if what == "tokenize" else "p50_ms"
        values = {name: [figures[what][unit] for figures in rounds] for name, rounds in found.items()}
        rates = {name: median(figures[what]["per_second"] for figures in rounds) for name, rounds in found.items()}
        label = f"{what}, {'sentences/s' if unit == 'per_second' else 'ms'}"
        gains = [f"{rates['C++'] / rates[name]:.2f}" for name in ("Python", "PyTorch")]
        lines.append((label, *map(cell, values.values()), *gains))
    table(title, ("", *found, "x Python", "x PyTorch"), lines)
    click.echo(
        "In brackets the least and the most of the rounds. 'x': how many times as fast as that one C++ is. PyTorch: "
        "eager, open_clip's tokenizer, ids cut to the\nlongest of the batch, Pillow's resize, PyAV's frames. "
        "'embed all videos': milliseconds for all of them, one after the other."
    )
    if json_file is not None:
        content = {"machine": machine, "title": title, "rounds": found}
        json_file.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def cell(values: Sequence[float]) -> str:
    digits = 0 if median(values) >= 1000 else 2
    return f"{median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


if __name__ == "__main__":
    sys.exit(main())
