"""The Python runtime or PyTorch at the work of vtr-bench, which prints the same lines: a process of its own for each.

    python benchmarks/cpp/peer.py {python,pytorch} BUNDLE [VIDEOS...] --texts FILE [--checkpoint model.pt]

`python` is `vtr_runtime.Model`. `pytorch` is our own modules in eager mode, from `--checkpoint`, with what comes with
them: open_clip's tokenizer, ids cut to the longest of the batch, Pillow's resize, PyAV's frames."""

from __future__ import annotations

import json
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from vtr_runtime import Model, load
from vtr_runtime.bundle import open_bundle
from vtr_runtime.console import SingleCli
from vtr_runtime.errors import UsageError
from vtr_runtime.manifest import FrameSpec
from vtr_runtime.pixels import resize_crop
from vtr_runtime.video import read_frames

LEAST_CALLS = 5  # as vtr-bench
MANY = 64


class Contestant(ABC):
    """What is timed. Sentences and frames come as they would to a service."""

    spec: FrameSpec

    @abstractmethod
    def tokenize(self, texts: list[str]) -> object: ...
    @abstractmethod
    def embed_texts(self, texts: list[str]) -> object: ...
    @abstractmethod
    def embed_pixels(self, pixels: NDArray[np.uint8], mask: NDArray[np.bool_]) -> object:
        """Pixels uint8 [B, T, S, S, 3], mask bool [B, T]."""

    def embed_frames(self, frames: Sequence[NDArray[np.uint8]]) -> object:
        """One clip: T frames uint8 [H, W, 3]."""
        pixels = np.stack([resize_crop(frame, self.spec.size) for frame in frames])
        return self.embed_pixels(pixels[None], np.ones((1, len(frames)), np.bool_))

    def embed_video(self, path: Path) -> object:
        frames = read_frames(path, self.spec)
        return self.embed_pixels(frames.pixels[None], frames.mask[None])


class Runtime(Contestant):
    def __init__(self, bundle: Path, threads: int) -> None:
        self.model: Model = load(bundle, "onnx-cpu", threads=threads, query_cache=0)
        self.spec = self.model.manifest.frames

    def tokenize(self, texts: list[str]) -> object:
        return self.model.tokenize(texts)

    def embed_texts(self, texts: list[str]) -> object:
        return self.model.encode_texts(texts)

    def embed_pixels(self, pixels: NDArray[np.uint8], mask: NDArray[np.bool_]) -> object:
        return self.model.encode_pixels(pixels, mask)


class PyTorch(Contestant):
    def __init__(self, bundle: Path, checkpoint: Path, threads: int) -> None:
        import torch
        from open_clip.tokenizer import SimpleTokenizer

        from vtr_export.model.checkpoint import load_checkpoint

        torch.set_num_threads(threads)
        self.torch: Any = torch
        self.towers: Any = load_checkpoint(checkpoint).model.eval()
        self.words: Any = SimpleTokenizer()
        self.spec = open_bundle(bundle).manifest.frames

    def tokenize(self, texts: list[str]) -> Any:
        return self.words(texts)

    def embed_texts(self, texts: list[str]) -> object:
        ids = self.tokenize(texts)
        with self.torch.no_grad():
            return self.towers.text(ids[:, : int((ids != 0).sum(dim=1).max())]).numpy()

    def embed_pixels(self, pixels: NDArray[np.uint8], mask: NDArray[np.bool_]) -> object:
        with self.torch.no_grad():
            return self.towers.video(self.torch.from_numpy(pixels), self.torch.from_numpy(mask)).numpy()


def time_calls(seconds: float, call: Callable[[], object]) -> list[float]:
    """Seconds of each call, sorted: until `seconds` have passed and LEAST_CALLS were made; the first is not counted."""
    call()
    found: list[float] = []
    while sum(found) < seconds or len(found) < LEAST_CALLS:
        start = time.perf_counter()
        call()
        found.append(time.perf_counter() - start)
    return sorted(found)


def print_line(what: str, seconds: Sequence[float], items: int) -> None:
    p50, p90, p99 = (seconds[int(part * (len(seconds) - 1) + 0.5)] for part in (0.5, 0.9, 0.99))
    times = {"p50_ms": 1e3 * p50, "p90_ms": 1e3 * p90, "p99_ms": 1e3 * p99}
    click.echo(json.dumps({"what": what, **times, "per_second": items / p50, "calls": len(seconds)}))


@click.command(cls=SingleCli)
@click.argument("kind", type=click.Choice(["python", "pytorch"]))
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("videos", nargs=-1, type=click.Path(path_type=Path))
@click.option("--texts", "texts_file", type=click.Path(path_type=Path), required=True, help="One sentence a line.")
@click.option("--checkpoint", type=click.Path(path_type=Path), help="The bundle's, for pytorch.")
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--seconds", type=float, default=2.0, show_default=True)
@click.option("--width", type=click.IntRange(min=1), default=1280, show_default=True)
@click.option("--height", type=click.IntRange(min=1), default=720, show_default=True)
def main(
    kind: str,
    bundle: Path,
    videos: tuple[Path, ...],
    texts_file: Path,
    checkpoint: Path | None,
    threads: int,
    seconds: float,
    width: int,
    height: int,
) -> None:
    """Time one contestant."""
    contestant = _open(kind, bundle, checkpoint, threads)
    texts = texts_file.read_text(encoding="utf-8").splitlines()
    print_line("tokenize", time_calls(seconds, lambda: contestant.tokenize(texts)), len(texts))
    endless = cycle(texts)
    print_line("embed one sentence", time_calls(seconds, lambda: contestant.embed_texts([next(endless)])), 1)
    print_line(f"embed {MANY} sentences", time_calls(seconds, lambda: contestant.embed_texts(texts[:MANY])), MANY)
    frame = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    print_line("resize one frame", time_calls(seconds, lambda: resize_crop(frame, contestant.spec.size)), 1)
    frames = [frame] * contestant.spec.count
    print_line("embed one clip of frames", time_calls(seconds, lambda: contestant.embed_frames(frames)), 1)
    if videos:
        every = time_calls(seconds, lambda: [contestant.embed_video(path) for path in videos])
        print_line("embed all videos", every, len(videos))


def _open(kind: str, bundle: Path, checkpoint: Path | None, threads: int) -> Contestant:
    if kind == "python":
        return Runtime(bundle, threads)
    if checkpoint is None:
        raise UsageError("pytorch needs the checkpoint that the bundle was exported from; add --checkpoint model.pt")
    return PyTorch(bundle, checkpoint, threads)


if __name__ == "__main__":
    sys.exit(main())
