"""What does the ranking of a split cost as it grows? Clips through PyTorch and one host, and the comparison of N x N.

    python benchmarks/conformance/cost.py [--bundle BUNDLE --ckpt best.pt] [--clips 64,128,256] [--scores 500,1000]

Without a bundle a small untrained model is exported first: time does not depend on weights. The clips are generated,
112 x 112 pixels, twelve frames taken. Peak memory is the process's, so it never falls from row to row."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple, TypeVar

import click
import numpy as np
import torch

from vtr_conformance.hosts import open_host
from vtr_conformance.hosts.torch import TorchHost
from vtr_conformance.retrieval import compare_split
from vtr_conformance.split import Embedded, EmbeddedSplit, SplitClips, embed_split, read_split
from vtr_export import ExportPlan, export
from vtr_export.model.checkpoint import save_checkpoint
from vtr_export.model.config import AlignmentConfig, BackboneConfig, ModelConfig, TemporalConfig
from vtr_export.model.redraw import redraw_zero_parameters
from vtr_export.model.retrieval import RetrievalModel
from vtr_runtime.bundle import open_bundle
from vtr_runtime.console import table
from vtr_training.demo.plan import GROUP, DemoSize
from vtr_training.demo.write import write_demo_data

BATCH = 8
DIM = 512
SMALL = {
    "embed_dim": 64,
    "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "head_width": 64},
    "text_cfg": {"width": 64, "heads": 4, "layers": 2},
}
NAMELESS = SplitClips("random", "test", ())
Found = TypeVar("Found")


@click.command()
@click.option("--bundle", type=click.Path(path_type=Path), help="[default: a small model, exported first]")
@click.option("--ckpt", type=click.Path(path_type=Path), help="The bundle's checkpoint.")
@click.option("--clips", "counts", default="64,128,256,512", show_default=True, help="Clips of each split.")
@click.option("--scores", "sizes", default="500,1000,2000", show_default=True, help="N of N captions against N clips.")
def main(bundle: Path | None, ckpt: Path | None, counts: str, sizes: str) -> None:
    """Time splits of growing size."""
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if bundle is None or ckpt is None:
            bundle, ckpt = make_small(folder)
        time_splits(bundle, ckpt, folder / "data", numbers(counts))
    time_comparisons(numbers(sizes))


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def make_small(folder: Path) -> tuple[Path, Path]:
    torch.manual_seed(0)
    temporal = TemporalConfig(kind="mstdt", position_init="normal", init="random")
    alignment = AlignmentConfig(kind="dits", steps=3, blocks=2)
    backbone = BackboneConfig.from_open_clip(SMALL)
    model = RetrievalModel(ModelConfig.from_backbone(backbone, temporal=temporal, alignment=alignment)).eval()
    redraw_zero_parameters(model, 0)
    save_checkpoint(folder / "best.pt", model)
    export(ExportPlan(output=folder / "bundle", checkpoint=folder / "best.pt"))
    return folder / "bundle", folder / "best.pt"


def time_splits(bundle: Path, ckpt: Path, data: Path, counts: Sequence[int]) -> None:
    # The training split: clips with captions, as many as wanted.
    most = -(-max(counts) // GROUP) * GROUP
    write_demo_data(data, size=DemoSize(train_clips=most, val_groups=0, test_groups=0, test_plain=0), seed=0)
    opened = open_bundle(bundle)
    reference, host = TorchHost(ckpt, opened), open_host(opened, "auto")
    every = read_split(str(data), "train")
    embed_split(reference, [host], opened, every.clips[:BATCH], BATCH)  # what the first run alone costs
    rows = []
    for count in counts:
        chosen = SplitClips(every.data, every.split, every.clips[:count])
        split, embedding = timed(lambda chosen=chosen: embed_split(reference, [host], opened, chosen.clips, BATCH))
        _, comparing = timed(lambda chosen=chosen, split=split: compare_split(host, chosen, split, split.hosts[0]))
        each = 1000 * (embedding.cpu + comparing.cpu) / count
        rows.append((count, len(split.captions), *embedding.cells, *comparing.cells, f"{each:.1f}", f"{peak():.0f}"))
    columns = ("clips", "captions", "embed, s", "CPU s", "compare, s", "CPU s", "CPU ms a clip", "peak, MiB")
    table(f"a split through PyTorch and {host.backend}", columns, rows)


def time_comparisons(sizes: Sequence[int]) -> None:
    """Random embeddings of DIM numbers: what grows with N x N."""
    rows = []
    for size in sizes:
        generator = np.random.default_rng(0)
        video, text = (units(generator.normal(size=(size, DIM))) for _ in range(2))
        moved = Embedded(units(video + 1e-4 * generator.normal(size=video.shape)), text)
        names = tuple(map(str, range(size)))
        split = EmbeddedSplit(names, names, np.arange(size), (), Embedded(video, text))
        _, took = timed(lambda split=split, moved=moved: compare_split(_Fp16(), NAMELESS, split, moved))
        rows.append((size, *took.cells, f"{1e6 * took.cpu / size**2:.2f}", f"{peak():.0f}"))
    columns = ("N", "seconds", "CPU s", "CPU microseconds a score", "peak, MiB")
    table(f"N captions against N clips, both ways, of {DIM} numbers", columns, rows)


class _Fp16:
    """A host that has answered already."""

    name, backend, precision, note = "host", "none", "fp16", None


def units(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


class Took(NamedTuple):
    """Seconds by the clock, and of all cores: the second says more on a busy machine."""

    wall: float
    cpu: float

    @property
    def cells(self) -> tuple[str, str]:
        return f"{self.wall:.1f}", f"{self.cpu:.1f}"


def timed(run: Callable[[], Found]) -> tuple[Found, Took]:
    wall, cpu = time.perf_counter(), time.process_time()
    found = run()
    return found, Took(time.perf_counter() - wall, time.process_time() - cpu)


def peak() -> float:
    """MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
