"""Where the time goes on this machine: each step from a file to a row apart, then the engine by batch, then all
together. Times are of the wall, in milliseconds."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .clips import Clip, EmbeddedClip
from .decoding import DecoderHere
from .embeddings import RowLayout, as_table
from .errors import MediaError
from .machine import peak_memory_mb
from .media.nvdec import Nvdec
from .model import Model
from .pipeline import stack
from .pixels import resize_crop
from .video import Frames, VideoFile, read_frames, read_rgb

LEAST_TIMES, MOST_TIMES = 3, 1000
QUERY = "a man in a red shirt is cooking a meal in the kitchen"


@dataclass(frozen=True)
class Timing:
    """A step's milliseconds: how often it was timed, and its percentiles. `items`: clips or sentences at a time."""

    step: str
    items: int
    times: int
    p50: float
    p90: float
    p99: float

    @property
    def items_per_second(self) -> float:
        return 1000 * self.items / self.p50


@dataclass(frozen=True)
class Flow:
    """All steps together, as `embed` runs them. `busy` is the share of the cores' time that was used."""

    clips: int
    seconds: float
    clips_per_second: float
    busy: float


@dataclass(frozen=True)
class Report:
    """What `vtr-runtime bench` prints. Memory is the process's peak so far, in MB; of a GPU it says nothing."""

    backend: str
    steps: tuple[Timing, ...]
    video: tuple[Timing, ...]
    text: tuple[Timing, ...]
    flow: Flow
    memory_mb: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def bench(
    model: Model, paths: Sequence[Path], *, batches: Sequence[int], seconds: float, nvdec: Nvdec | None = None
) -> Report:
    """Measure a model on real clips. MediaError where one of them cannot be read."""
    memory = {"loaded": peak_memory_mb()}
    frames = [read_frames(path, model.manifest.frames) for path in paths]
    steps = tuple(_steps(model, paths, frames, seconds, nvdec))
    memory["decoding"] = peak_memory_mb()
    text = tuple(_text(model, batches, seconds))
    memory["text"] = peak_memory_mb()
    video = []
    for batch in batches:
        video.append(_video(model, frames, batch, seconds))
        memory[f"video, batch {batch}"] = peak_memory_mb()
    flow = _flow(model, paths, seconds, nvdec)
    memory["all together"] = peak_memory_mb()
    return Report(model.backend_choice, steps, tuple(video), text, flow, memory)


def _steps(
    model: Model, paths: Sequence[Path], frames: Sequence[Frames], seconds: float, nvdec: Nvdec | None
) -> Iterator[Timing]:
    """One clip at a time, each step alone; a step's times are of all clips in turn."""
    spec = model.manifest.frames
    yield _timed("list packets", 1, [partial(VideoFile, path) for path in paths], seconds)
    opened = [VideoFile(path, nvdec=nvdec) for path in paths]
    yield _timed("decode", 1, [partial(file.read_rgb, spec) for file in opened], seconds)
    pictures = [read_rgb(path, spec).images for path in paths[:8]]
    resize = [partial(_resize, images, spec.size) for images in pictures]
    yield _timed("resize", 1, resize, seconds)
    batch = list(islice(cycle(frames), 8))
    yield _timed("copy into a batch of 8", 8, [partial(stack, batch)], seconds)
    pixels, mask = stack(batch)
    yield _timed("engine, batch of 8", 8, [partial(model.encode_pixels, pixels, mask)], seconds)
    layout = RowLayout(model.manifest.dim, model.space, model.variant)
    rows = [
        EmbeddedClip(Clip(paths[0]), "ok", embedding=vector, times=batch[0].times)
        for vector in model.encode_pixels(pixels, mask)
    ]
    yield _timed("rows for Parquet, 8", 8, [partial(as_table, rows, layout)], seconds)


def _resize(images: Sequence[NDArray[np.uint8]], size: int) -> list[NDArray[np.uint8]]:
    return [resize_crop(image, size) for image in images]


def _video(model: Model, frames: Sequence[Frames], batch: int, seconds: float) -> Timing:
    pixels, mask = stack(list(islice(cycle(frames), batch)))
    return _timed("video", batch, [partial(model.backend.video, pixels, mask)], seconds)


def _text(model: Model, batches: Sequence[int], seconds: float) -> Iterator[Timing]:
    yield _timed("tokenize one", 1, [partial(model.tokenize, [QUERY])], seconds)
    for batch in batches:
        ids = model.tokenize([QUERY] * batch)
        yield _timed("text", batch, [partial(model.encode_ids, ids)], seconds)


def _flow(model: Model, paths: Sequence[Path], seconds: float, nvdec: Nvdec | None) -> Flow:
    """Whole rounds over the clips until the time is up."""
    start, used, clips = time.perf_counter(), time.process_time(), 0
    while not clips or time.perf_counter() - start < seconds:
        for item in model.embed_clips(map(Clip, paths), decoder=DecoderHere(nvdec=nvdec)):
            if item.embedding is None:
                raise MediaError(item.message)
            clips += 1
    wall, used = time.perf_counter() - start, time.process_time() - used
    return Flow(clips, wall, clips / wall, used / wall / (os.cpu_count() or 1))


def _timed(step: str, items: int, calls: Sequence[Callable[[], Any]], seconds: float) -> Timing:
    """Each call in turn, all of them once at least, until the time is up."""
    calls[0]()  # what is done once only
    least = max(LEAST_TIMES, len(calls))
    found: list[float] = []
    begin = time.perf_counter()
    for call in cycle(calls):
        if len(found) >= least and (time.perf_counter() - begin >= seconds or len(found) >= MOST_TIMES):
            break
        start = time.perf_counter()
        call()
        found.append(1000 * (time.perf_counter() - start))
    p50, p90, p99 = np.percentile(found, [50, 90, 99])
    return Timing(step, items, len(found), float(p50), float(p90), float(p99))
