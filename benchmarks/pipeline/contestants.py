"""Who runs: the loops that people write, and ours. Each takes files and gives an embedding for each."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FRAMES, SIZE, BATCH = 12, 224, 8
MOST_KEPT = 400
Embed = Callable[[Sequence[Path]], NDArray[np.float32]]


@dataclass(frozen=True)
class Contestant:
    """One row of the table. `loop` is the name of a loop below, or for ours of a backend."""

    name: str
    precision: str
    loop: str
    source: Path  # open_clip's weights, a graph, or a bundle
    ours: bool = False


class Stopwatch:
    """Seconds of processor time by part."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._lock = threading.Lock()

    def add(self, part: str, seconds: float) -> None:
        with self._lock:
            self.seconds[part] = self.seconds.get(part, 0.0) + seconds

    def timed(
        self, part: str, function: Callable[..., Any], clock: Callable[[], float] = time.process_time
    ) -> Callable[..., Any]:
        """The function, timed: by the whole process's clock where nothing else runs beside it, FFmpeg's own threads
        apart; by the thread's where the engine does."""

        def run(*arguments: Any, **named: Any) -> Any:
            start = clock()
            try:
                return function(*arguments, **named)
            finally:
                self.add(part, clock() - start)

        return run


def prepare(contestant: Contestant, threads: int, watch: Stopwatch) -> Embed:
    """Load everything; the function that comes back is what is timed."""
    if contestant.ours:
        return _ours(contestant, threads, watch)
    if contestant.loop == "onnxruntime":
        return _plain_loop(_session(contestant.source, threads), watch)
    import torch

    torch.set_num_threads(threads)
    tower = _tower(contestant)
    if contestant.loop == "plainest":
        return _plain_loop(tower, watch, every_frame)
    if contestant.loop == "eager":
        return _plain_loop(tower, watch)
    return _with_workers(tower, watch, workers=2)


def every_frame(path: Path) -> list[Any]:
    """Twelve pictures evenly over the file by the shortest loop that there is: all frames as RGB, then some of them.
    What is kept is thinned on the way, or six minutes of 1080p would fill any memory."""
    import av
    from PIL import Image

    kept: list[Any] = []
    step = 1
    with av.open(str(path)) as container:
        for number, frame in enumerate(container.decode(video=0)):
            picture = frame.to_ndarray(format="rgb24")
            if number % step == 0:
                kept.append(picture)
            if len(kept) > MOST_KEPT:
                kept, step = kept[::2], 2 * step
    return [Image.fromarray(kept[place]) for place in np.linspace(0, len(kept) - 1, FRAMES).astype(int)]


def obvious_frames(path: Path) -> list[Any]:
    """Twelve pictures evenly over the file by the loop of every tutorial: count, decode from the start, keep some.
    FFmpeg decodes with all cores, as tutorials advise."""
    import av

    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        total = stream.frames
    if not total:  # webm and gif do not say
        with av.open(str(path)) as container:
            container.streams.video[0].thread_type = "AUTO"
            total = sum(1 for _ in container.decode(video=0))
    wanted = np.linspace(0, total - 1, FRAMES).astype(int)
    kept: dict[int, Any] = {}
    with av.open(str(path)) as container:
        container.streams.video[0].thread_type = "AUTO"
        for number, frame in enumerate(container.decode(video=0)):
            if number in wanted:
                kept[number] = frame.to_image()
            if number >= wanted[-1]:
                break
    last = max(kept)  # a file may hold fewer frames than it says
    return [kept[min(number, last)] for number in wanted]


def _preprocess() -> Callable[[Any], Any]:
    """open_clip's own."""
    from open_clip.transform import image_transform

    return image_transform(SIZE, is_train=False)


def _plain_loop(
    tower: Callable[[Any], NDArray[np.float32]], watch: Stopwatch, frames: Callable[[Path], list[Any]] = obvious_frames
) -> Embed:
    """A file after the other: decode, preprocess, tower."""
    import torch

    preprocess = watch.timed("resize", _preprocess())
    decode = watch.timed("decode", frames)

    def embed(paths: Sequence[Path]) -> NDArray[np.float32]:
        return np.concatenate([_pool(tower(torch.stack([*map(preprocess, decode(path))]))) for path in paths])

    return embed


class _Videos:
    """A data set as torch's DataLoader wants it."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths, self._preprocess = paths, _preprocess()

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: int) -> Any:
        import torch

        torch.set_num_threads(1)  # as DataLoader's own workers
        watch = Stopwatch()
        images = watch.timed("decode", obvious_frames)(self.paths[number])
        pixels = watch.timed("resize", lambda: torch.stack([self._preprocess(image) for image in images]))()
        return pixels, watch.seconds


def _with_workers(tower: Callable[[Any], NDArray[np.float32]], watch: Stopwatch, workers: int) -> Embed:
    from torch.utils.data import DataLoader

    def embed(paths: Sequence[Path]) -> NDArray[np.float32]:
        loader: Any = DataLoader(_Videos(paths), batch_size=BATCH, num_workers=workers, prefetch_factor=2)
        found = []
        for clips, seconds in loader:
            found.append(_pool(tower(clips.flatten(0, 1))))
            for part, some in seconds.items():
                watch.add(part, float(some.sum()))
        return np.concatenate(found)

    return embed


def _pool(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Picture features [n * 12, D] -> unit embeddings [n, D]."""
    unit = features / np.linalg.norm(features, axis=-1, keepdims=True)
    mean = unit.reshape(-1, FRAMES, unit.shape[-1]).mean(1)
    return np.asarray(mean / np.linalg.norm(mean, axis=-1, keepdims=True), np.float32)


def _tower(contestant: Contestant) -> Callable[[Any], NDArray[np.float32]]:
    import torch
    from video import load_open_clip

    tower: Any = load_open_clip(contestant.source)
    kind = torch.float32 if contestant.precision == "fp32" else torch.bfloat16
    tower = tower.to(kind)
    if contestant.loop == "compiled":
        import torch._inductor.config

        torch._inductor.config.freezing = True
        tower = torch.compile(tower)

    def run(pixels: Any) -> NDArray[np.float32]:
        with torch.no_grad():
            found: NDArray[np.float32] = tower(pixels.to(kind)).float().numpy()
            return found

    return run


def _session(graph: Path, threads: int) -> Callable[[Any], NDArray[np.float32]]:
    from video import open_session

    session = open_session(graph, threads)
    name = session.get_inputs()[0].name
    return lambda pixels: np.asarray(session.run(None, {name: pixels.numpy()})[0])


def _ours(contestant: Contestant, threads: int, watch: Stopwatch) -> Embed:
    """As `vtr-runtime embed` does it, without the file that it writes."""
    import vtr_runtime
    from vtr_runtime import video
    from vtr_runtime.decoding import DecoderHere

    model = vtr_runtime.load(contestant.source, contestant.loop, threads=threads, spin=False)
    decoder = DecoderHere()
    video.resize_crop = watch.timed("resize", video.resize_crop, time.thread_time)
    decoder.read = watch.timed("decode and resize", decoder.read, time.thread_time)  # type: ignore[method-assign]

    def embed(paths: Sequence[Path]) -> NDArray[np.float32]:
        clips = (vtr_runtime.Clip(path) for path in paths)
        return np.stack([_good(item) for item in model.embed_clips(clips, decoder=decoder)])

    return embed


def _good(item: Any) -> NDArray[np.float32]:
    if item.embedding is None:
        raise RuntimeError(item.message)
    found: NDArray[np.float32] = item.embedding
    return found
