"""How many videos a second, from the file to the embedding, ours beside the usual loops, in one run?

    python benchmarks/pipeline/run.py CLIPS/ [--rounds 3] [--json out/pipeline/result.json]

ViT-B/32 with random weights that all share, twelve frames a video. Each contestant lives in a process of its own and
embeds every clip once per round, in turn; a first pass over a few clips is not counted. Processor time is that of the
contestant's process and of those it waited for."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

import click
import numpy as np
from contestants import BATCH, FRAMES, SIZE, Contestant, Stopwatch, prepare

sys.path.append(str(Path(__file__).parents[1] / "throughput"))  # the same weights, graphs and machine

from graphs import Folder, export_ours, make_weights
from machine import describe_machine
from video import load_open_clip

from vtr_runtime.clip_lists import gather
from vtr_runtime.console import SingleCli, note, table
from vtr_runtime.errors import UsageError
from vtr_runtime.machine import machine_lines, peak_memory_mb


@dataclass
class Child:
    """A contestant's process, and what its rounds took."""

    contestant: Contestant
    rounds: list[dict[str, Any]] = field(default_factory=list)
    missing: str = ""

    def start(self, clips: Sequence[Path], threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        os.environ["OMP_NUM_THREADS"] = str(threads)
        self._process = context.Process(target=_serve, args=(other, self.contestant, list(clips), threads))
        self._process.start()
        other.close()
        self._receive()

    def race(self) -> None:
        if not self.missing:
            self._pipe.send("run")
            if (found := self._receive()) is not None:
                self.rounds.append(found)

    def close(self) -> None:
        if not self.missing:
            self._pipe.send(None)
        self._process.join()

    def _receive(self) -> Any:
        try:
            found = self._pipe.recv()
        except EOFError:
            found = RuntimeError("its process ended")
        if isinstance(found, RuntimeError):
            self.missing = str(found)
            return None
        return found


def _serve(pipe: Connection, contestant: Contestant, clips: list[Path], threads: int) -> None:
    logging.disable(logging.WARNING)
    try:
        watch = Stopwatch()
        embed = prepare(contestant, threads, watch)
        embed(clips[: 2 * BATCH])
        pipe.send("ready")
        while pipe.recv() is not None:
            watch.seconds.clear()
            cpu, start = _processor_seconds(), time.perf_counter()
            embeddings = embed(clips)
            wall, cpu = time.perf_counter() - start, _processor_seconds() - cpu
            pipe.send(
                {
                    "wall": wall,
                    "cpu": cpu,
                    "parts": dict(watch.seconds),
                    "mb": peak_memory_mb(),
                    "embeddings": embeddings,
                }
            )
    except Exception as error:
        pipe.send(RuntimeError(f"{type(error).__name__}: {error}"))


def _processor_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


@click.command(cls=SingleCli)
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), default="out/pipeline", show_default=True)
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True)
@click.option("--threads", type=click.IntRange(1), default=os.cpu_count(), show_default=True)
@click.option("--longest", type=float, default=300.0, show_default=True, help="Leave out clips of more seconds.")
@click.option("--only", metavar="WORD", multiple=True, help="Contestants whose name holds one of the words.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="A file for the figures and the machine.")
def main(
    paths: tuple[Path, ...],
    output: Path,
    rounds: int,
    threads: int,
    longest: float,
    only: tuple[str, ...],
    json_file: Path | None,
) -> None:
    """Time every contestant on the clips PATHS and print the table."""
    machine = describe_machine(threads)
    clips = _usable(paths, longest)
    children = [Child(row) for row in _field(output) if not only or any(word in row.name for word in only)]
    try:
        for child in children:
            note(f"starting {child.contestant.name}, {child.contestant.precision}")
            child.start(clips, threads)
        for number in range(rounds):
            note(f"round {number + 1} of {rounds}")
            for child in children:
                child.race()
    finally:
        for child in children:
            child.close()
    _report(children, len(clips), rounds, threads, machine, json_file)


def _usable(paths: Sequence[Path], longest: float) -> list[Path]:
    """Clips from which all of them get frames."""
    from contestants import obvious_frames

    from vtr_runtime.errors import MediaError
    from vtr_runtime.video import VideoFile

    found = []
    for clip in gather(paths).clips:
        try:
            if VideoFile(clip.path).length <= longest and obvious_frames(clip.path):
                found.append(clip.path)
        except (MediaError, OSError, ValueError, IndexError) as error:
            note(f"left out: {clip.path} ({error})")
    if not found:
        raise UsageError("none of the clips can be decoded by all; give others")
    return found


def _field(output: Path) -> list[Contestant]:
    """Make weights, graph and bundles that are not there."""
    import torch

    from vtr_export import export
    from vtr_export.plan import ExportPlan

    logging.disable(logging.WARNING)
    output.mkdir(parents=True, exist_ok=True)
    folder = Folder(output)
    plain, low = output / "clip.onnx", output / "bundle-bf16"
    note(f"weights, graph and bundles in {output}")
    make_weights(folder)
    if not plain.is_file():
        pixels = torch.zeros(FRAMES, 3, SIZE, SIZE)
        program = torch.onnx.export(load_open_clip(folder.weights), (pixels,), dynamo=True, verbose=False)
        assert program is not None  # dynamo=True always gives a program
        program.save(plain, external_data=False)
    if not folder.bundle.is_dir():
        export_ours(folder)
    if not low.is_dir():
        export(ExportPlan(low, checkpoint=folder.checkpoint, targets=("openvino",), precision="bf16"))
    return [
        Contestant("(a) PyTorch eager, plain loop", "fp32", "eager", folder.weights),
        Contestant("(a) PyTorch eager, all frames to RGB", "fp32", "plainest", folder.weights),
        Contestant("(b) PyTorch eager, DataLoader of 2", "fp32", "workers", folder.weights),
        Contestant("(c) ONNX Runtime, plain loop", "fp32", "onnxruntime", plain),
        Contestant("ours, ONNX Runtime", "fp32", "onnx-cpu", folder.bundle, ours=True),
        Contestant("ours, OpenVINO", "fp32", "openvino", folder.bundle, ours=True),
        Contestant("(d) torch.compile, DataLoader of 2", "bf16", "compiled", folder.weights),
        Contestant("(d) PyTorch eager, DataLoader of 2", "bf16", "workers", folder.weights),
        Contestant("ours, OpenVINO", "bf16", "openvino", low, ours=True),
    ]


def _report(
    children: Sequence[Child],
    clips: int,
    rounds: int,
    threads: int,
    machine: dict[str, Any],
    json_file: Path | None,
) -> None:
    ran = [child for child in children if child.rounds]
    reference = ran[0].rounds[0]["embeddings"]
    rows, figures = [], []
    for child in ran:
        walls = [found["wall"] for found in child.rounds]
        wall, cpu = median(walls), median(found["cpu"] for found in child.rounds)
        parts = child.rounds[walls.index(sorted(walls)[len(walls) // 2])]["parts"]
        share = {"decode": parts.get("decode", parts.get("decode and resize", 0.0) - parts.get("resize", 0.0))}
        share |= {"resize": parts.get("resize", 0.0)}
        share |= {"engine": cpu - sum(share.values())}
        known = bool(parts)
        alike = float((child.rounds[0]["embeddings"] * reference).sum(1).mean())
        who = child.contestant
        figure = {
            "name": who.name, "precision": who.precision, "ours": who.ours, "videos_per_second": clips / wall,
            "least": clips / max(walls), "most": clips / min(walls), "wall": wall, "cpu": cpu,
            "wall_to_cpu_per_core": wall * threads / cpu, "cosine_to_a": alike,
            "mb": child.rounds[-1]["mb"], "share": {k: v / cpu for k, v in share.items()} if known else None,
        }  # fmt: skip
        figures.append(figure)
    first = figures[0]["videos_per_second"]
    for figure in figures:
        others = [f["videos_per_second"] for f in figures if f["precision"] == figure["precision"] and not f["ours"]]
        best = f"{figure['videos_per_second'] / max(others):.2f}" if figure["ours"] and others else ""
        share = figure["share"]
        rows.append((
            figure["name"], figure["precision"], f"{figure['videos_per_second']:.2f}",
            f"{figure['least']:.2f} - {figure['most']:.2f}", f"{figure['videos_per_second'] / first:.2f}", best,
            *([f"{100 * share[part]:.0f}" for part in ("decode", "resize", "engine")] if share else ["", "", ""]),
            f"{figure['wall_to_cpu_per_core']:.2f}", f"{figure['mb']:.0f}", f"{figure['cosine_to_a']:.3f}",
        ))  # fmt: skip
    columns = ("", "precision", "videos/s", "rounds", "to (a)", "to best other", "decode %", "resize %", "engine %")
    for line in machine_lines(machine):
        click.echo(line)
    title = f"{clips} clips, {FRAMES} frames each, median of {rounds} rounds, {threads} threads"
    table(title, (*columns, "wall x cores / CPU", "MB", "cosine to (a)"), rows)
    for child in children:
        if child.missing:
            note(f"NOT RUN: {child.contestant.name}, {child.contestant.precision}: {child.missing}")
    if json_file is not None:
        json_file.write_text(json.dumps({"machine": machine, "clips": clips, "figures": figures}, indent=1) + "\n")


if __name__ == "__main__":
    np.set_printoptions(precision=4)
    sys.exit(main())
