"""How long do twelve frames of an hour take, beside decoding the hour?

    python benchmarks/decoding/long_file.py [--minutes 60] [-o out/decoding]

One minute of 1080p H.264 (x264's usual settings: groups of at most 250 pictures, three B-pictures) is encoded and put
behind itself sixty times with later times. Both ways use one thread and must give the same frames, byte for byte."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

import av
import click
import numpy as np
from av.video.frame import VideoFrame

from vtr_runtime.console import SingleCli, note, table
from vtr_runtime.manifest import FrameSpec
from vtr_runtime.media.container import open_video
from vtr_runtime.media.decode import decode_all, decode_selected, pick_frames, select
from vtr_runtime.media.timeline import list_packets
from vtr_runtime.sampling import ClipTimes

RATE, WIDTH, HEIGHT = 30, 1920, 1080
SPEC = FrameSpec(count=12, size=224)
Result = TypeVar("Result")


@click.command(cls=SingleCli)
@click.option("-o", "--output", type=click.Path(path_type=Path), default="out/decoding", show_default=True)
@click.option("--minutes", type=click.IntRange(min=1), default=60, show_default=True)
def main(output: Path, minutes: int) -> None:
    """Time both ways on one file and print the table."""
    output.mkdir(parents=True, exist_ok=True)
    minute, hour = output / "minute.mp4", output / f"{minutes}-minutes.mp4"
    if not hour.is_file():
        note(f"encoding {minute}, then {hour}")
        encode(minute)
        repeat(minute, hour, minutes)
    listing, timeline = timed(lambda: list_packets(hour))
    plan = ClipTimes(timeline.times, timeline.last_duration).sample(SPEC.count)
    wanted = sorted({timeline.keys[index] for index in plan.indices})
    selection = select(timeline, wanted)
    assert selection is not None

    def part() -> dict[int, bytes] | None:
        with open_video(hour) as (container, stream):
            return decode_selected(container, stream, timeline, selection, wanted, pixels)

    def whole() -> list[tuple[int, bytes]]:
        with open_video(hour) as (container, stream):
            return pick_frames(decode_all(container, stream, timeline), wanted, pixels)

    some, found = timed(part)
    everything, reference = timed(whole)
    same = found is not None and [(key, found[key]) for key in wanted] == reference
    rows = [
        ("first pass: packets listed", len(timeline.order), f"{listing:.2f}"),
        ("second pass, what is needed", selection.decoded, f"{some:.2f}"),
        ("both", "", f"{listing + some:.2f}"),
        ("second pass, whole", len(timeline.order), f"{everything:.2f}"),
    ]
    size = hour.stat().st_size / 1e6
    table(f"{minutes} minutes of {WIDTH}x{HEIGHT} H.264, {size:.0f} MB, one thread", ("", "packets", "seconds"), rows)
    click.echo(f"whole / both: {everything / (listing + some):.1f}; the same frames: {same}")
    if not same:
        sys.exit(1)


def pixels(frame: VideoFrame) -> bytes:
    return bytes(frame.to_ndarray().tobytes())


def timed(work: Callable[[], Result]) -> tuple[float, Result]:
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def encode(path: Path) -> None:
    """A large picture over which the view wanders, with a little noise: about 8 Mbit/s."""
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (60, 100, 3), dtype=np.uint8)
    scene = np.kron(coarse, np.ones((40, 40, 1), np.uint8))
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=RATE, options={"preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = WIDTH, HEIGHT, "yuv420p", 8_000_000
        for number in range(60 * RATE):
            top = round(600 * (1 + np.sin(number / 97)))
            left = round(1000 * (1 + np.sin(number / 211)))
            view = scene[top : top + HEIGHT, left : left + WIDTH].copy()
            view[:, :, 1] ^= random.integers(0, 16, (HEIGHT, WIDTH), dtype=np.uint8)
            container.mux(stream.encode(VideoFrame.from_ndarray(view, format="rgb24")))
        container.mux(stream.encode(None))


def repeat(source: Path, target: Path, times: int) -> None:
    """The same coded pictures, each time a minute later."""
    with av.open(str(target), "w") as out:
        copy: Any = None
        for turn in range(times):
            with av.open(str(source)) as container:
                video = container.streams.video[0]
                assert video.time_base is not None
                copy = copy or out.add_stream_from_template(video)
                minute = int(Fraction(video.frames, RATE) / video.time_base)
                for packet in container.demux(video):
                    if packet.dts is None or packet.pts is None:
                        continue
                    packet.pts, packet.dts, packet.stream = packet.pts + turn * minute, packet.dts + turn * minute, copy
                    out.mux(packet)


if __name__ == "__main__":
    sys.exit(main())
