"""From clips to embeddings: decoding runs ahead in threads, the engine takes batches, memory is bounded.

Batches depend on the clips alone, not on how fast each was decoded, so a run gives the same bytes as any other."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .clips import Clip, EmbeddedClip, FileStamp
from .errors import MediaError, UsageError
from .manifest import FrameSpec
from .sampling import Windows
from .video import Frames, VideoFile

VIDEO_BATCH = 8
# Frames wait for the engine in at most so many batches.
BATCHES_AHEAD = 2

# pixels uint8 [B, T, S, S, 3] and mask bool [B, T] -> the video graph's outputs by name
Engine = Callable[[NDArray[np.uint8], NDArray[np.bool_]], dict[str, NDArray[np.float32]]]


def embed_clips(
    clips: Iterable[Clip],
    spec: FrameSpec,
    engine: Engine,
    *,
    windows: Windows | None = None,
    workers: int | None = None,
) -> Iterator[EmbeddedClip]:
    """Embed clips in their order; see `Model.embed_clips`."""
    with ThreadPoolExecutor(workers or os.cpu_count() or 1, thread_name_prefix="decode") as pool:
        jobs = _jobs(clips, spec, windows, pool)
        queue: deque[_Job] = deque()
        ready: deque[_Decoded] = deque()
        try:
            while True:
                while sum(len(job.clips) for job in queue) + len(ready) < BATCHES_AHEAD * VIDEO_BATCH:
                    job = next(jobs, None)
                    if job is None:
                        break
                    queue.append(job)
                while queue and len(ready) < VIDEO_BATCH:
                    ready.extend(queue.popleft().decoded.result())
                if not ready:
                    return
                yield from _embed_batch([ready.popleft() for _ in range(min(VIDEO_BATCH, len(ready)))], engine)
        finally:
            for job in queue:
                job.decoded.cancel()


@dataclass(frozen=True)
class _Decoded:
    """A clip's frames, or why there are none."""

    clip: Clip
    stamp: FileStamp | None
    frames: Frames | MediaError


@dataclass(frozen=True)
class _Job:
    """Clips of one file, and their frames as a decoding thread will have them."""

    clips: list[Clip]
    decoded: Future[list[_Decoded]]


@dataclass(frozen=True)
class _Opened:
    file: VideoFile | MediaError
    stamp: FileStamp | None

    @classmethod
    def open(cls, path: Path) -> _Opened:
        try:
            found = path.stat()
            stamp = FileStamp(found.st_size, found.st_mtime_ns)
        except OSError:
            stamp = None  # the reader says in its own words what is wrong
        try:
            return cls(VideoFile(path), stamp)
        except MediaError as error:
            return cls(error, stamp)

    def read(self, clips: Sequence[Clip], spec: FrameSpec) -> list[_Decoded]:
        if isinstance(self.file, MediaError):
            return [_Decoded(clip, self.stamp, self.file) for clip in clips]
        found = self.file.read_cuts(spec, [(clip.start, clip.end) for clip in clips])
        return [_Decoded(clip, self.stamp, frames) for clip, frames in zip(clips, found, strict=True)]


def _jobs(clips: Iterable[Clip], spec: FrameSpec, windows: Windows | None, pool: ThreadPoolExecutor) -> Iterator[_Job]:
    """What the decoding threads are given: a clip, or a few windows of one that lie together."""
    for clip in clips:
        if windows is None:
            yield _Job([clip], pool.submit(_read, clip, spec))
            continue
        if (clip.start, clip.end) != (None, None):
            raise UsageError(f"{clip.path} is cut already; give either its start and end or windows")
        opened = _Opened.open(clip.path)
        parts = [clip]
        if isinstance(opened.file, VideoFile):
            parts = [Clip(clip.path, *cut) for cut in windows.cuts(opened.file.length)]
        for start in range(0, len(parts), VIDEO_BATCH):
            some = parts[start : start + VIDEO_BATCH]
            yield _Job(some, pool.submit(opened.read, some, spec))


def _read(clip: Clip, spec: FrameSpec) -> list[_Decoded]:
    return _Opened.open(clip.path).read([clip], spec)


def _embed_batch(batch: Sequence[_Decoded], engine: Engine) -> Iterator[EmbeddedClip]:
    good = [item.frames for item in batch if isinstance(item.frames, Frames)]
    found: dict[str, NDArray[np.float32]] = {}
    if good:
        found = engine(np.stack([frames.pixels for frames in good]), np.stack([frames.mask for frames in good]))
    row = 0
    for item in batch:
        if isinstance(item.frames, MediaError):
            yield EmbeddedClip(item.clip, "error", str(item.frames), stamp=item.stamp)
            continue
        status: Literal["ok", "warning"] = "warning" if item.frames.warnings else "ok"
        frames = found.get("frame_embeddings")
        yield EmbeddedClip(
            item.clip,
            status,
            "; ".join(item.frames.warnings),
            found["embedding"][row],
            item.frames.times[item.frames.mask],
            None if frames is None else frames[row],
            item.stamp,
        )
        row += 1
