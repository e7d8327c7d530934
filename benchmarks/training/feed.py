"""How much do prepared shards, and frozen towers, save a training run?

    python benchmarks/training/feed.py VIDEOS/ [--batches 8] [--batch 16] [--rounds 3] [--json result.json]

Feeding: the same random batches of the clips of VIDEOS/, as `fit` would draw them, from decoding on the fly (a process
per core, ahead of the batch; their start, about a second, is counted) and from shards that were prepared before, in
turn. Both end with uint8 arrays in memory. Training: steps of the MSR-VTT 9K recipe with all parts trained, with the
image tower frozen, and with both frozen, as `vtr-train check` measures them: random weights, frames or features in
memory."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import click
import numpy as np

from vtr_runtime.clip_lists import gather
from vtr_runtime.console import SingleCli, note, table
from vtr_runtime.errors import UsageError
from vtr_runtime.machine import describe_machine, machine_lines
from vtr_runtime.manifest import FrameSpec
from vtr_training.check.cost import measure_cost
from vtr_training.data.clip import Clip
from vtr_training.data.frame_cache import cached_frames, read_all
from vtr_training.data.prepare import PrepareOptions, prepare
from vtr_training.data.source import read_clips
from vtr_training.data.stored import Format
from vtr_training.pool import count_cores
from vtr_training.recipe import read_recipe

RECIPE = Path(__file__).parents[2] / "training" / "recipes" / "msrvtt-9k-mstdt.toml"
CAPTIONS = ("a man is talking about a new car", "two girls dance on a stage in front of many people")
FROZEN = {"end to end": (), "image frozen": ("image",), "image and text frozen": ("image", "text")}
Feed = Callable[[list[np.ndarray]], None]


@click.command(cls=SingleCli)
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--batches", type=click.IntRange(1), default=8, show_default=True, help="Of a round.")
@click.option("--batch", type=click.IntRange(2), default=16, show_default=True, help="Clips of a batch.")
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True)
@click.option("--step-batch", type=click.IntRange(2), default=8, show_default=True, help="Clips of a training step.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="A file for the figures and the machine.")
def main(
    paths: tuple[Path, ...], batches: int, batch: int, rounds: int, step_batch: int, json_file: Path | None
) -> None:
    """Time feeding and steps, and print both tables."""
    machine = describe_machine(count_cores(), ("torch", "numpy", "av", "pillow"))
    with TemporaryDirectory() as scratch:
        fed, clips = _feed(paths, Path(scratch), batches, batch, rounds)
    steps = {name: _step_seconds(step_batch, frozen) for name, frozen in FROZEN.items()}
    table(
        f"Feeding: {clips} clips, {batches} batches of {batch}, median of {rounds} rounds, {count_cores()} workers",
        ["from", "clips/s", "rounds", "x decoding"],
        [
            [name, f"{median(rates):.1f}", f"{min(rates):.1f} - {max(rates):.1f}", _times(fed, name)]
            for name, rates in fed.items()
        ],
    )
    whole = steps["end to end"]
    table(
        f"Steps of {step_batch} clips, 12 frames, ViT-B/32 with the mstdt head, fp32",
        ["trained", "s a step", "steps/s", "x end to end"],
        [[name, f"{took:.3f}", f"{1 / took:.2f}", f"{whole / took:.1f}"] for name, took in steps.items()],
    )
    for line in machine_lines(machine):
        click.echo(line)
    if json_file is not None:
        found = {"machine": machine, "clips": clips, "clips_per_second": fed, "step_seconds": steps}
        json_file.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def _times(fed: dict[str, list[float]], name: str) -> str:
    return f"{median(fed[name]) / median(fed['decoding']):.1f}"


def _feed(
    paths: tuple[Path, ...], scratch: Path, batches: int, batch: int, rounds: int
) -> tuple[dict[str, list[float]], int]:
    """Clips per second of every round by source, and how many clips there are."""
    spec = FrameSpec()
    clips = _readable(paths, spec, batch)
    (scratch / "data.jsonl").write_text(
        "".join(
            json.dumps({"video": str(c.video.resolve()), "captions": ["x"], "split": "train"}) + "\n" for c in clips
        )
    )
    feeds: dict[str, Feed] = {"decoding": lambda drawn: _decode(clips, drawn, spec)}
    formats: tuple[Format, ...] = ("npy", "jpeg")
    for name in formats:
        folder = scratch / name
        prepare(str(scratch), folder, PrepareOptions(spec, name))
        stored = cached_frames(read_clips(f"prepared:{folder}", "train"), spec, folder).pixels
        feeds[f"shards, {name}"] = lambda drawn, pixels=stored: _read(pixels, drawn)
    rates: dict[str, list[float]] = {name: [] for name in feeds}
    for number in range(rounds):
        random = np.random.default_rng(number)
        drawn = [random.choice(len(clips), batch, replace=False) for _ in range(batches)]
        for name, feed in feeds.items():
            began = time.perf_counter()
            feed(drawn)
            rates[name].append(batches * batch / (time.perf_counter() - began))
    return rates, len(clips)


def _readable(paths: tuple[Path, ...], spec: FrameSpec, batch: int) -> list[Clip]:
    found = [Clip(one.path, ("x",), "train") for one in gather(paths).clips]
    kept = [clip for clip, frames in zip(found, read_all(found, spec), strict=True) if not isinstance(frames, str)]
    if len(kept) < batch:
        raise UsageError(f"{len(kept)} clips can be read, which make no batch of {batch}; name more, or lower --batch")
    note(f"{len(kept)} of {len(found)} clips can be read")
    return kept


def _decode(clips: list[Clip], drawn: list[np.ndarray], spec: FrameSpec) -> None:
    frames = read_all([clips[row] for rows in drawn for row in rows], spec)
    for rows in drawn:
        np.stack([next(frames).pixels for _ in rows])


def _read(pixels: np.ndarray, drawn: list[np.ndarray]) -> None:
    for rows in drawn:
        _ = pixels[rows]


def _step_seconds(batch: int, frozen: tuple[str, ...]) -> float:
    overrides = ["model.pretrained=", f"batches.size={batch}", f"optim.freeze={json.dumps(frozen)}"]
    note(f"steps with {', '.join(frozen) or 'nothing'} frozen")
    return measure_cost(read_recipe(RECIPE, overrides), CAPTIONS, budget=600).step_seconds


if __name__ == "__main__":
    main()
