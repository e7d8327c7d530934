"""From clips to embeddings: decoding runs ahead in threads, the engine takes batches, memory is bounded.

Batches depend on the clips alone, not on how fast each was decoded: a run gives the same bytes as any other."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .clips import Clip, EmbeddedClip, FileStamp
from .decoding import Decoder, DecoderHere
from .errors import MediaError, UsageError
from .manifest import FrameSpec
from .sampling import Windows
from .video import Frames

VIDEO_BATCH = 8
# So many clips are decoded or being decoded while the engine is busy: one slow file does not hold the others up. Twelve
# frames of 224 x 224 are 1.8 MB.
CLIPS_AHEAD = 32

# pixels uint8 [B, T, S, S, 3] and mask bool [B, T] -> the video graph's outputs by name
Engine = Callable[[NDArray[np.uint8], NDArray[np.bool_]], dict[str, NDArray[np.float32]]]


@dataclass(frozen=True)
class Pipeline:
    """How clips become embeddings: which frames, by which engine, of whole files or of windows, decoded where."""

    spec: FrameSpec
    engine: Engine
    windows: Windows | None = None
    workers: int | None = None
    decoder: Decoder | None = None

    def embed(self, clips: Iterable[Clip]) -> Iterator[EmbeddedClip]:
        """Embed clips in their order; see `Model.embed_clips`."""
        return (item for _, item in self.embed_groups([clips]))

    def embed_groups(self, groups: Iterable[Iterable[Clip]]) -> Iterator[tuple[int, EmbeddedClip]]:
        """Embed groups of clips in their order, each row with its group's number. No batch holds clips of two groups,
        so that a group's rows are the same alone and in any company; decoding runs ahead beyond a group's end."""
        decoder = self.decoder or DecoderHere()
        pool = ThreadPoolExecutor(self.workers or os.cpu_count() or 1, thread_name_prefix="decode")
        jobs = self._jobs(groups, decoder, pool)
        queue: deque[_Job] = deque()
        ready: deque[_Decoded] = deque()
        ahead = 0
        try:
            while True:
                while ahead < CLIPS_AHEAD and (job := next(jobs, None)) is not None:
                    queue.append(job)
                    ahead += len(job.clips)
                if not ready and not queue:
                    return
                group = (ready or queue)[0].group
                while len(ready) < VIDEO_BATCH and queue and queue[0].group == group:
                    ready.extend(queue.popleft().decoded.result())
                batch = [ready.popleft() for _ in range(min(VIDEO_BATCH, len(ready)))]
                ahead -= len(batch)
                for item in _embed_batch(batch, self.engine):
                    yield group, item
        finally:
            pool.shutdown(cancel_futures=True)
            if self.decoder is None:
                decoder.close()

    def _jobs(self, groups: Iterable[Iterable[Clip]], decoder: Decoder, pool: ThreadPoolExecutor) -> Iterator[_Job]:
        """What the decoding threads are given: a clip, or a few windows of one that lie together."""
        for group, clips in enumerate(groups):
            for clip in clips:
                for parts in _parts(clip, self.windows, decoder):
                    decoded = pool.submit(_decode, group, parts, self.spec, decoder)
                    yield _Job(group, parts, decoded)


@dataclass(frozen=True)
class _Decoded:
    """A clip's frames, or why there are none."""

    group: int
    clip: Clip
    stamp: FileStamp | None
    frames: Frames | MediaError


@dataclass(frozen=True)
class _Job:
    """Clips of one file, and their frames as a decoding thread will have them."""

    group: int
    clips: Sequence[Clip]
    decoded: Future[list[_Decoded]]


def _parts(clip: Clip, windows: Windows | None, decoder: Decoder) -> Iterator[list[Clip]]:
    """The clip, or its windows, a few at a time."""
    if windows is None:
        yield [clip]
        return
    if (clip.start, clip.end) != (None, None):
        raise UsageError(f"{clip.path} is cut already; give either its start and end or windows")
    try:
        cuts = decoder.windows(clip.path, windows)
    except MediaError:
        yield [clip]  # reading it says again what is wrong
        return
    for start in range(0, len(cuts), VIDEO_BATCH):
        yield [Clip(clip.path, *cut) for cut in cuts[start : start + VIDEO_BATCH]]


def _decode(group: int, clips: Sequence[Clip], spec: FrameSpec, decoder: Decoder) -> list[_Decoded]:
    """`clips` are of one file."""
    path = clips[0].path
    stamp = FileStamp.of(path)
    found = decoder.read(path, spec, [(clip.start, clip.end) for clip in clips])
    return [_Decoded(group, clip, stamp, frames) for clip, frames in zip(clips, found, strict=True)]


def stack(batch: Sequence[Frames]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Clips as the engine takes them: pixels uint8 [B, T, S, S, 3] and mask bool [B, T]."""
    return np.stack([frames.pixels for frames in batch]), np.stack([frames.mask for frames in batch])


def _embed_batch(batch: Sequence[_Decoded], engine: Engine) -> Iterator[EmbeddedClip]:
    good = [item.frames for item in batch if isinstance(item.frames, Frames)]
    found: dict[str, NDArray[np.float32]] = {}
    if good:
        found = engine(*stack(good))
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
