"""Frames are decoded once, in processes of their own, into one memory-mapped uint8 file, and read from there later.

The file's name is a fingerprint of the frame contract and of every video's path, size and time of change, so a cache is
never stale: what changed is decoded anew under another name."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vtr_runtime.console import note, progress
from vtr_runtime.decoding import Decoder, DecoderProcesses
from vtr_runtime.errors import MediaError, StorageError
from vtr_runtime.manifest import FrameSpec, fingerprint
from vtr_runtime.publish import staged_folder
from vtr_runtime.video import Frames

from ..pool import count_cores
from .clip import DECODE_SECONDS, Clip

CACHE_VERSION = 1  # raise when frames are read in another way
AHEAD = 4  # clips decoded or being decoded for each core


@dataclass(frozen=True)
class CachedFrames:
    """Frames of the readable ones of `clips`, in their order."""

    clips: tuple[Clip, ...]
    pixels: NDArray[np.uint8]  # [N, T, S, S, 3], memory-mapped
    mask: NDArray[np.bool_]  # [N, T]
    unreadable: tuple[str, ...]  # one sentence each
    place: Path  # the cache's folder, named by a fingerprint of the clips and the frame contract


def cached_frames(
    clips: Sequence[Clip], spec: FrameSpec, folder: Path, *, seconds: float = DECODE_SECONDS
) -> CachedFrames:
    """Decode `clips` into `folder` unless they are there already. Unreadable clips, and those that take longer than
    `seconds` to decode, are left out and listed.

    MediaError if none is readable."""
    place = folder / _key(clips, spec, seconds)
    if not place.is_dir():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _decode(clips, spec, place, seconds)
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
    pixels = np.load(place / "pixels.npy", mmap_mode="r")[: len(kept)]  # it has room for the unreadable ones too
    return CachedFrames(tuple(kept), pixels, np.load(place / "mask.npy"), tuple(failed.values()), place)


def _key(clips: Sequence[Clip], spec: FrameSpec, seconds: float) -> str:
    """Another limit is another cache: more clips may be readable then."""
    entries = []
    for clip in clips:
        state = clip.video.stat() if clip.video.exists() else None
        changed = (state.st_size, state.st_mtime_ns) if state else None
        entries.append([str(clip.video.resolve()), clip.start, clip.end, changed])
    return fingerprint([CACHE_VERSION, spec.model_dump(mode="json"), seconds, entries])[:24]


def read_all(clips: Sequence[Clip], spec: FrameSpec, *, seconds: float = DECODE_SECONDS) -> Iterator[Frames | str]:
    """Read the frames of each clip, in order, in processes of their own; one sentence instead where that fails, where
    the file ends its process, or takes longer than `seconds`."""
    cores = count_cores()
    decoder = DecoderProcesses(seconds=seconds)
    with ThreadPoolExecutor(cores) as pool, progress("decoding", len(clips)) as bar:
        ahead: deque[Future[Frames | str]] = deque()  # bounded, or frames would pile up in memory
        try:
            for clip in clips:
                ahead.append(pool.submit(_read, decoder, clip, spec))
                if len(ahead) >= AHEAD * cores:
                    yield ahead.popleft().result()
                    bar.advance()
            while ahead:
                yield ahead.popleft().result()
                bar.advance()
        finally:
            pool.shutdown(cancel_futures=True)
            decoder.close()


def _decode(clips: Sequence[Clip], spec: FrameSpec, place: Path, seconds: float) -> None:
    shape = (len(clips), spec.count, spec.size, spec.size, 3)
    failed: dict[int, str] = {}
    masks: list[NDArray[np.bool_]] = []
    with staged_folder(place) as staged:
        pixels = np.lib.format.open_memmap(staged / "pixels.npy", mode="w+", dtype=np.uint8, shape=shape)
        for i, frames in enumerate(read_all(clips, spec, seconds=seconds)):
            if isinstance(frames, str):
                failed[i] = frames
            else:
                pixels[len(masks)] = frames.pixels
                masks.append(frames.mask)
        pixels.flush()
        np.save(staged / "mask.npy", np.array(masks, np.bool_).reshape(-1, spec.count))
        (staged / "unreadable.json").write_text(json.dumps(failed, ensure_ascii=False), encoding="utf-8")


def _read(decoder: Decoder, clip: Clip, spec: FrameSpec) -> Frames | str:
    [found] = decoder.read(clip.video, spec, [(clip.start, clip.end)])
    return str(found) if isinstance(found, MediaError) else found
