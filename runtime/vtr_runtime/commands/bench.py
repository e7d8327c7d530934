"""`vtr-runtime bench`"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..console import echo_json, json_option, note, table
from ..errors import UsageError
from .options import BackendChoice, backend_options, bundle_argument, decoder_option

if TYPE_CHECKING:
    from ..bench import Timing

LIBRARIES = ("vtr-runtime", "numpy", "av", "pillow", "onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt")


@click.command()
@bundle_argument
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path))
@click.option("--batches", default="1,2,4,8,16", show_default=True, help="Clips, and sentences, at a time.")
@click.option("--seconds", default=2.0, show_default=True, type=click.FloatRange(min=0), help="For each figure.")
@decoder_option
@click.option("--threads", type=click.IntRange(1), help="Threads of the engine. [default: its own choice]")
@backend_options
@json_option
def bench(
    bundle: Path,
    paths: tuple[Path, ...],
    batches: str,
    seconds: float,
    decoder: str,
    threads: int | None,
    backend: BackendChoice,
    as_json: bool,
) -> None:
    """Measure where the time goes on this machine, on the videos PATHS (default: the bundle's own golden clips).

    \b
    vtr-runtime bench bundle/ VIDEOS/ --backend openvino --batches 1,8,32
    vtr-runtime bench bundle/ --json > bench.json"""
    from ..bench import bench as measure
    from ..clip_lists import gather
    from ..machine import describe_machine, machine_lines
    from ..media.nvdec import Nvdec
    from ..model import load

    sizes = _sizes(batches)
    nvdec = Nvdec() if decoder == "nvdec" else None
    machine = describe_machine(threads or os.cpu_count() or 1, LIBRARIES)
    model = load(bundle, **backend, threads=threads)
    note(f"backend: {model.backend_choice}")
    clips = [clip.path for clip in gather(paths or [bundle / "golden" / "media"]).clips]
    if not clips:
        raise UsageError("there is no video to measure with; give files or folders after the bundle")
    report = measure(model, clips, batches=sizes, seconds=seconds, nvdec=nvdec)
    if nvdec is not None:
        note(str(nvdec))
    if as_json:
        echo_json({"machine": machine, "clips": len(clips), **report.to_json()})
        return
    for line in machine_lines(machine):
        click.echo(line)
    columns = ("", "at a time", "p50 ms", "p90", "p99", "ms each", "each second", "timed")
    table(f"steps, {len(clips)} clips", columns, map(_row, report.steps))
    table("engine by batch", columns, [_row(timing) for timing in (*report.video, *report.text)])
    flow = report.flow
    table(
        "all together, as embed runs them",
        ("videos", "seconds", "videos/s", "cores busy %"),
        [(flow.clips, f"{flow.seconds:.1f}", f"{flow.clips_per_second:.2f}", f"{100 * flow.busy:.0f}")],
    )
    table("peak memory until then", tuple(report.memory_mb), [[f"{mb:.0f} MB" for mb in report.memory_mb.values()]])


def _sizes(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise UsageError(f"--batches {text!r} is not a list of whole numbers from 1; give for example --batches 1,8,32")
    return sorted({int(part) for part in parts})


def _row(timing: Timing) -> tuple[object, ...]:
    ms = (f"{value:.3g}" for value in (timing.p50, timing.p90, timing.p99, timing.p50 / timing.items))
    return (timing.step, timing.items, *ms, f"{timing.items_per_second:.3g}", timing.times)
