"""`vtr-train prepare`: decode once, into shards that a trainer reads in place of the videos.

A shard is written beside its place and renamed; what is known of it is kept in .parts until the index is written. So a
run that was killed goes on behind its last shard, and leaves the same bytes as one that was not."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vtr_runtime.clips import FileStamp
from vtr_runtime.errors import ConfigError, OutputExistsError, StorageError
from vtr_runtime.manifest import FrameSpec, file_sha256, fingerprint
from vtr_runtime.publish import check_output, staged_file, storage_errors
from vtr_runtime.video import Frames

from .clip import DECODE_SECONDS, Clip
from .frame_cache import read_all
from .prepared import INDEX, UNFINISHED, Index, Prepared, PreparedSplit, ShardEntry, SourceData, Unreadable
from .shards import clip_record, write_shard
from .source import DataSource, read_clips
from .stored import Format, frame_contract

SHARD_CLIPS = 256
PREPARE_VERSION = 1  # raise when shards are written in another way


@dataclass(frozen=True)
class PrepareOptions:
    """`splits`: those to prepare, all that there are if none. `seconds`: that decoding a clip may take."""

    frames: FrameSpec
    format: Format = "npy"
    splits: tuple[str, ...] = ()
    shard_clips: int = SHARD_CLIPS
    seconds: float = DECODE_SECONDS


def prepare(spec: str, folder: Path, options: PrepareOptions) -> Index:
    """Fill `folder`, or go on where a killed run of the same command left it.

    DataError for data that are not whole (see source.py), ConfigError for a folder that was begun with something
    else, OutputExistsError for one that is there already. Unreadable clips are listed in the index."""
    source = DataSource(spec)
    if source.prepared is not None:
        raise ConfigError(f"{spec} is prepared already; give the SPEC of the videos")
    names = options.splits or source.splits
    splits = {name: read_clips(spec, name) for name in names}
    data = SourceData(
        title=source.spec.title,
        name=source.spec.name,
        subset=source.spec.subset,
        held_out=source.spec.held_out,
        fingerprint=_fingerprint(splits),
    )
    plan = _plan(data, options)
    if _is_done(folder, plan):
        return Prepared(folder).index
    _begin(folder, plan, splits, options)
    home = source.home.resolve()
    with storage_errors(folder):
        for name, clips in splits.items():
            _write_split(folder, name, clips, home, options)
        index = Index(
            data=data,
            frames=options.frames,
            format=options.format,
            splits={name: _collect(folder, name, clips, options.shard_clips) for name, clips in splits.items()},
        )
        _write_json(folder / INDEX, index.model_dump(mode="json", by_alias=True))
        shutil.rmtree(folder / UNFINISHED)
    return index


def _fingerprint(splits: dict[str, list[Clip]]) -> str:
    entries = []
    for name, clips in splits.items():
        for clip in clips:
            stamp = FileStamp.of(clip.video)
            entries.append([name, clip_record(clip, str(clip.video.resolve())), stamp and [stamp.size, stamp.mtime_ns]])
    return fingerprint(entries)


def _plan(data: SourceData, options: PrepareOptions) -> dict[str, Any]:
    """All that the shards' bytes depend on, by the names that a message calls them by."""
    return {
        "version": PREPARE_VERSION,
        "data": data.model_dump(mode="json"),
        "frames": frame_contract(options.frames),
        "format": options.format,
        "splits": list(options.splits),
        "clips of a shard": options.shard_clips,
        "seconds": options.seconds,
    }


def _is_done(folder: Path, plan: dict[str, Any]) -> bool:
    """A run that was killed between the index and the clearing up. Refuses every other folder that is not to go on."""
    there = folder / UNFINISHED / "plan.json"
    if not there.is_file():
        if os.path.lexists(folder) and not there.parent.is_dir():  # that is made first: nothing was begun
            raise OutputExistsError(f"{folder} exists already; choose another -o, or remove it")
        check_output(folder, overwrite=True)
        return False
    began = json.loads(there.read_text(encoding="utf-8"))
    if began != plan:
        changed = ", ".join(name for name in plan if began.get(name) != plan[name])
        raise ConfigError(f"{folder} was begun with other settings ({changed}); choose another -o, or remove it")
    if not (folder / INDEX).is_file():
        return False
    shutil.rmtree(folder / UNFINISHED)
    return True


def _begin(folder: Path, plan: dict[str, Any], splits: dict[str, list[Clip]], options: PrepareOptions) -> None:
    with storage_errors(folder):
        (folder / UNFINISHED).mkdir(parents=True, exist_ok=True)
        for left_over in folder.rglob(".*.part"):  # of a run that was killed while it wrote
            left_over.unlink()
        if options.format == "npy":
            spec = options.frames
            left = sum(len(rows) for name, clips in splits.items() for rows in _missing(folder, name, clips, options))
            needed, free = left * spec.count * spec.size**2 * 3, shutil.disk_usage(folder).free
            if needed > free:
                raise StorageError(
                    f"{left:,} clips take up to {needed / 2**30:.1f} GiB and {folder} has {free / 2**30:.1f} GiB left; "
                    "choose another -o, or --format jpeg"
                )
        _write_json(folder / UNFINISHED / "plan.json", plan)


def _missing(folder: Path, name: str, clips: Sequence[Clip], options: PrepareOptions) -> Iterator[range]:
    """The rows of each shard that is not there yet."""
    for number, first in enumerate(range(0, len(clips), options.shard_clips)):
        if not _part(folder, name, number).is_file():
            yield range(first, min(first + options.shard_clips, len(clips)))


def _write_split(folder: Path, name: str, clips: Sequence[Clip], home: Path, options: PrepareOptions) -> None:
    missing = list(_missing(folder, name, clips, options))
    pending = [clips[row] for rows in missing for row in rows]
    reading = read_all(pending, options.frames, seconds=options.seconds, label=f"{name}: decoding")
    with closing(reading) as found:
        for rows in missing:
            number = rows.start // options.shard_clips
            named = ((row, clips[row], _video_name(clips[row].video, home)) for row in rows)
            entry, unreadable = _write_one(folder / f"{name}-{number:06d}.tar", rows, named, found, options.format)
            _write_json(_part(folder, name, number), {"shard": entry, "unreadable": unreadable})


def _write_one(
    path: Path, rows: range, named: Iterable[tuple[int, Clip, str]], found: Iterator[Frames | str], format: Format
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Publish one shard. Returns its entry, and those of `named` that could not be read."""
    unreadable: list[Unreadable] = []

    def readable() -> Iterator[tuple[int, Clip, str, Frames]]:
        for (row, clip, video), frames in zip(named, found, strict=False):  # `found` goes on in the next shard
            if isinstance(frames, str):
                unreadable.append(Unreadable(row=row, error=frames, clip=clip_record(clip, video)))
            else:
                yield row, clip, video, frames

    with staged_file(path) as staged:
        write_shard(staged, readable(), format)
        digest, size = file_sha256(staged), staged.stat().st_size
    entry = ShardEntry(file=path.name, sha256=digest, bytes=size, first=rows.start, clips=len(rows))
    return entry.model_dump(mode="json"), [one.model_dump(mode="json") for one in unreadable]


def _collect(folder: Path, name: str, clips: Sequence[Clip], shard_clips: int) -> PreparedSplit:
    shards, unreadable = [], []
    for number in range(-(-len(clips) // shard_clips)):
        known = json.loads(_part(folder, name, number).read_text(encoding="utf-8"))
        shards.append(ShardEntry.model_validate(known["shard"]))
        unreadable += [Unreadable.model_validate(one) for one in known["unreadable"]]
    return PreparedSplit(
        clips=len(clips),
        readable=len(clips) - len(unreadable),
        captions=sum(len(clip.captions) for clip in clips) - sum(len(one.clip["captions"]) for one in unreadable),
        shards=tuple(shards),
        unreadable=tuple(unreadable),
    )


def _part(folder: Path, name: str, number: int) -> Path:
    return folder / UNFINISHED / f"{name}-{number:06d}.json"


def _video_name(video: Path, home: Path) -> str:
    """Below the data set's folder where it lies there: the shards may go to another machine."""
    real = video.resolve()
    return (real.relative_to(home) if real.is_relative_to(home) else real).as_posix()


def _write_json(path: Path, value: Any) -> None:
    with staged_file(path) as staged:
        staged.write_text(json.dumps(value, ensure_ascii=False, indent=1, sort_keys=True) + "\n", encoding="utf-8")
