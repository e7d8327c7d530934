"""Frames are decoded once, in processes of their own, into one memory-mapped uint8 file, and read from there later.

The file's name is a fingerprint of the frame contract and of every video's path, size and time of change, so a cache is
never stale: what changed is decoded anew under another name."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Generator, Sequence
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
from .stored import Pixels, StoredPixels, verify_shards

CACHE_VERSION = 1  # raise when frames are read in another way
SHOWN = 20  # skipped clips that are named
AHEAD = 4  # clips decoded or being decoded for each core


@dataclass(frozen=True)
class CachedFrames:
    """Frames of the readable ones of `clips`, in their order."""

    clips: tuple[Clip, ...]
    pixels: Pixels  # uint8 [N, T, S, S, 3], memory-mapped, or read from shards when asked for
    mask: NDArray[np.bool_]  # [N, T]
    unreadable: tuple[str, ...]  # one sentence each
    place: Path  # the cache's folder, named by a fingerprint of the clips and the frame contract


def cached_frames(
    clips: Sequence[Clip], spec: FrameSpec, folder: Path, *, seconds: float = DECODE_SECONDS
) -> CachedFrames:
    """Decode `clips` into `folder` unless they are there already. Unreadable clips, and those that take longer than
    `seconds` to decode, are left out and listed. Frames that lie in shards stay there.

    MediaError if none is readable, DataError for shards that are damaged or of another frame contract."""
    if any(clip.stored for clip in clips):
        return _stored_frames(clips, spec, folder)
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
    unreadable = tuple(failed.values())
    _tell(kept, unreadable)
    pixels = np.load(place / "pixels.npy", mmap_mode="r")[: len(kept)]  # it has room for the unreadable ones too
    return CachedFrames(tuple(kept), pixels, np.load(place / "mask.npy"), unreadable, place)


def _stored_frames(clips: Sequence[Clip], spec: FrameSpec, folder: Path) -> CachedFrames:
    readable = [(clip, clip.stored) for clip in clips if clip.stored is not None and clip.stored.error is None]
    kept, stored = tuple(clip for clip, _ in readable), [frames for _, frames in readable]
    unreadable = tuple(clip.stored.error for clip in clips if clip.stored is not None and clip.stored.error is not None)
    _tell(kept, unreadable)
    verify_shards(stored, spec)
    mask = np.array([frames.mask for frames in stored], np.bool_).reshape(-1, spec.count)
    shards = dict.fromkeys(frames.shard.sha256 for frames in stored)
    place = folder / fingerprint([CACHE_VERSION, spec.model_dump(mode="json"), list(shards), len(kept)])[:24]
    return CachedFrames(kept, StoredPixels(stored, spec), mask, unreadable, place)


def _tell(kept: Sequence[Clip], unreadable: Sequence[str]) -> None:
    if not kept:
        raise MediaError(f"none of the {len(unreadable)} clips can be read; the first: {unreadable[0]}")
    tell_skipped(unreadable)


def tell_skipped(sentences: Sequence[str]) -> None:
    """The first of them, and how many more."""
    for sentence in sentences[:SHOWN]:
        note(f"skipped: {sentence}")
    if len(sentences) > SHOWN:
        note(f"skipped: {len(sentences) - SHOWN:,} more")


def _key(clips: Sequence[Clip], spec: FrameSpec, seconds: float) -> str:
    """Another limit is another cache: more clips may be readable then."""
    entries = []
    for clip in clips:
        state = clip.video.stat() if clip.video.exists() else None
        changed = (state.st_size, state.st_mtime_ns) if state else None
        entries.append([str(clip.video.resolve()), clip.start, clip.end, changed])
    return fingerprint([CACHE_VERSION, spec.model_dump(mode="json"), seconds, entries])[:24]


def read_all(
    clips: Sequence[Clip], spec: FrameSpec, *, seconds: float = DECODE_SECONDS, label: str = "decoding"
) -> Generator[Frames | str, None, None]:
    """Read the frames of each clip, in order, in processes of their own; one sentence instead where that fails, where
    the file ends its process, or takes longer than `seconds`. From shards, where the frames lie there: see
    `cached_frames`."""
    stored = [clip.stored for clip in clips if clip.stored is not None]
    if stored:
        verify_shards(stored, spec)
        yield from (frames.error or frames.read() for frames in stored)
        return
    cores = count_cores()
    decoder = DecoderProcesses(seconds=seconds)
    with ThreadPoolExecutor(cores) as pool, progress(label, len(clips)) as bar:
        ahead: deque[Future[Frames | str]] = deque()  # bounded, or frames would pile up in memory
        try:
            for clip in clips:
                ahead.append(pool.submit(_read, decoder, clip, spec))
                if len(ahead) >= AHEAD * cores:
                    found = ahead.popleft().result()
                    bar.advance()
                    yield found
            while ahead:
                found = ahead.popleft().result()
                bar.advance()
                yield found
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
