"""From 10 thousand to 100 million videos, in plain arithmetic from figures that were measured on two cores.

    python benchmarks/scale.py

prints the tables of docs/scale.md as Markdown. Each figure says where it was measured; an assumption says so."""

from __future__ import annotations

from collections.abc import Callable

import click

SIZES = {"10 thousand": 10**4, "1 million": 10**6, "100 million": 10**8}

# Measured; docs/speed.md, docs/search.md, docs/data-sets.md
EMBED_PER_SECOND = 5.63  # videos, OpenVINO bf16, 2 cores, 54 mixed clips of 0.1 s to 6 min
DECODE_SHARE = 0.43 + 0.12  # of its processor time: decoding and resizing
BUSY = 1.03  # wall x cores / processor time
CORES = 2
NPY, JPEG = 1.81e6, 0.22e6  # bytes of a clip, 12 frames of 224 x 224; JPEG on 25 real clips
EXACT_MS, EXACT_64_MS = 88.0, 8.0  # a million rows of 512, one query and one of 64, 2 cores
INDEX_F32, INDEX_F16 = 2114e6, 1090e6  # bytes for a million rows
ANN_BUILD = 781.0  # seconds for a million rows, 2 cores
CLIP_GFLOP = 105.7  # ViT-B/32 on 12 frames, forward
HEAD_GFLOP = 0.3  # the mstdt head on 12 frames

# Assumed
TRAIN_PASSES_OF_FORWARD = 3.0  # forward and backward
GPU_TFLOPS = 150.0  # that a data-centre GPU keeps up in bf16; none was measured here
MACHINE_GB = 64.0  # memory of a search machine for the index
PARTS = 1_000_000  # videos of one embed job

core_seconds = CORES / EMBED_PER_SECOND / BUSY
decode_core_seconds = core_seconds * DECODE_SHARE
train_clips_per_second = GPU_TFLOPS * 1e3 / (CLIP_GFLOP * TRAIN_PASSES_OF_FORWARD)

ROWS: dict[str, Callable[[int], str]] = {
    "prepare: decode and resize once, core hours": lambda n: _number(n * decode_core_seconds / 3600),
    "shards in npy": lambda n: _bytes(n * NPY),
    "shards in jpeg": lambda n: _bytes(n * JPEG),
    "one training pass over all, GPU hours": lambda n: _number(n / train_clips_per_second / 3600),
    "embed from videos on CPUs in bf16, core hours": lambda n: _number(n * core_seconds / 3600),
    "embed from shards, core hours": lambda n: _number(n * (core_seconds - decode_core_seconds) / 3600),
    "embed from cached image features (head alone), core hours": lambda n: _number(
        n * (core_seconds - decode_core_seconds) * HEAD_GFLOP / CLIP_GFLOP / 3600
    ),
    "image features of 12 frames, fp32 as fit keeps them": lambda n: _bytes(n * 12 * 512 * 4),
    "index f32": lambda n: _bytes(n / 1e6 * INDEX_F32),
    "index f16": lambda n: _bytes(n / 1e6 * INDEX_F16),
    f"machines of {MACHINE_GB:.0f} GB that hold it in f32": lambda n: _number(
        -(-n / 1e6 * INDEX_F32 // (MACHINE_GB * 1e9))
    ),
    "exact search on one machine of 2 cores, one query": lambda n: _seconds(n / 1e6 * EXACT_MS / 1e3),
    "the same, each of 64 together": lambda n: _seconds(n / 1e6 * EXACT_64_MS / 1e3),
    "2-core shards for an exact query in 100 ms": lambda n: _number(max(1, -(-n / 1e6 * EXACT_MS // 100))),
    "building graphs (--ann), core hours": lambda n: _number(n / 1e6 * ANN_BUILD * CORES / 3600),
}


@click.command()
def main() -> None:
    """Print the table and what one GPU eats."""
    click.echo("| | " + " | ".join(SIZES) + " |")
    click.echo("|---" * (len(SIZES) + 1) + "|")
    for name, row in ROWS.items():
        click.echo(f"| {name} | " + " | ".join(row(count) for count in SIZES.values()) + " |")
    click.echo()
    click.echo(
        f"A GPU at {GPU_TFLOPS:.0f} TFLOP/s trains {train_clips_per_second:.0f} clips a second: "
        f"{train_clips_per_second * decode_core_seconds:.0f} cores of decoding on the fly, or "
        f"{_bytes(train_clips_per_second * NPY)}/s of npy shards, or {_bytes(train_clips_per_second * JPEG)}/s of jpeg."
    )


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _bytes(value: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:,.3g} TB" if value < 1000 else f"{value:,.0f} TB"


def _seconds(value: float) -> str:
    return f"{value * 1000:.2g} ms" if value < 0.1 else f"{value:.2g} s"


if __name__ == "__main__":
    main()
