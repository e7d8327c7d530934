"""Frames are decoded once, by a pool of processes, into one memory-mapped uint8 file, and read from there after that.

The file's name is a fingerprint of the frame contract and of every video's path, size and time of change, so a cache is
never stale: what changed is decoded anew under another name."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vtr_runtime.console import note, progress
from vtr_runtime.errors import MediaError, StorageError, VtrError
from vtr_runtime.manifest import FrameSpec, fingerprint
from vtr_runtime.publish import staged_folder
from vtr_runtime.video import Frames, read_frames

from ..pool import count_cores, open_pool
from .jsonl import Clip

CACHE_VERSION = 1  # raise when frames are read in another way


@dataclass(frozen=True)
class CachedFrames:
    """Frames of the readable ones of `clips`, in their order."""

    clips: tuple[Clip, ...]
    pixels: NDArray[np.uint8]  # [N, T, S, S, 3], memory-mapped; the rows after the last clip's are empty
    mask: NDArray[np.bool_]  # [N, T]
    unreadable: tuple[str, ...]  # one sentence each
    place: Path  # the cache's folder, named by a fingerprint of the clips and the frame contract


def cached_frames(clips: Sequence[Clip], spec: FrameSpec, folder: Path) -> CachedFrames:
    """Decode `clips` into `folder` unless they are there already. Unreadable clips are left out and listed.

    MediaError if none is readable."""
    place = folder / _key(clips, spec)
    if not place.is_dir():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _decode(clips, spec, place)
        except (OSError, StorageError) as error:
            raise StorageError(
                f"frames cannot be kept in {folder} ({error}); set data.cache to a folder with room"
            ) from error
    failed: dict[str, str] = json.loads((place / "unreadable.json").read_text(encoding="utf-8"))
    kept = [clip for i, clip in enumerate(clips) if str(i) not in failed]
    if not kept:
        raise MediaError(f"none of the {len(clips)} clips can be read; the first: {next(iter(failed.values()))}")
    for sentence in failed.values():
        note(f"skipped: {sentence}")
    pixels = np.load(place / "pixels.npy", mmap_mode="r")
    return CachedFrames(tuple(kept), pixels, np.load(place / "mask.npy"), tuple(failed.values()), place)


def _key(clips: Sequence[Clip], spec: FrameSpec) -> str:
    entries = []
    for clip in clips:
        state = clip.video.stat() if clip.video.exists() else None
        changed = (state.st_size, state.st_mtime_ns) if state else None
        entries.append([str(clip.video.resolve()), clip.start, clip.end, changed])
    return fingerprint([CACHE_VERSION, spec.model_dump(mode="json"), entries])[:24]


def read_all(clips: Sequence[Clip], spec: FrameSpec) -> Iterator[Frames | str]:
    """Read the frames of each clip, in order, in a pool of processes; one sentence instead where that fails."""
    chunk = 64 * count_cores()  # bounded, or frames would pile up in memory
    with open_pool() as pool, progress("decoding", len(clips)) as bar:
        for start in range(0, len(clips), chunk):
            for frames in pool.map(partial(_read, spec=spec), clips[start : start + chunk], chunksize=8):
                yield frames
                bar.advance()


def _decode(clips: Sequence[Clip], spec: FrameSpec, place: Path) -> None:
    shape = (len(clips), spec.count, spec.size, spec.size, 3)
    failed: dict[int, str] = {}
    masks: list[NDArray[np.bool_]] = []
    with staged_folder(place) as staged:
        pixels = np.lib.format.open_memmap(staged / "pixels.npy", mode="w+", dtype=np.uint8, shape=shape)
        for i, frames in enumerate(read_all(clips, spec)):
            if isinstance(frames, str):
                failed[i] = frames
            else:
                pixels[len(masks)] = frames.pixels
                masks.append(frames.mask)
        pixels.flush()
        np.save(staged / "mask.npy", np.array(masks, np.bool_).reshape(-1, spec.count))
        (staged / "unreadable.json").write_text(json.dumps(failed, ensure_ascii=False), encoding="utf-8")


def _read(clip: Clip, spec: FrameSpec) -> Frames | str:
    try:
        return read_frames(clip.video, spec, start=clip.start, end=clip.end)
    except VtrError as error:
        return str(error)
