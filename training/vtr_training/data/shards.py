"""One shard: a tar file by WebDataset's convention, in which the members of a clip share the name up to the first dot.

    000000042.json         the clip: id, captions, split, group, kind, start, end, source, video; its frames' times
    000000042.npy          uint8 [frames, S, S, 3], exact; or
    000000042.000.jpg ...  a JPEG for each frame

The number is the clip's row in its split. The same clips give the same bytes."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vtr_runtime.errors import DataError
from vtr_runtime.video import Frames

from .clip import Clip
from .stored import MEND, Format, Shard, StoredFrames

JPEG_QUALITY = 95


def write_shard(path: Path, clips: Iterable[tuple[int, Clip, str, Frames]], format: Format) -> None:
    """`clips`: row, clip, what its video is called from now on, and its frames."""
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for row, clip, video, frames in clips:
            seen = int(frames.mask.sum())
            said = {**clip_record(clip, video), "times": frames.times[:seen].tolist(), "warnings": frames.warnings}
            _add(tar, f"{key(row)}.json", json.dumps(said, ensure_ascii=False, sort_keys=True).encode())
            for name, data in _pictures(frames, seen, format):
                _add(tar, f"{key(row)}.{name}", data)


def read_shard(shard: Shard, rows: Sequence[int]) -> Iterator[Clip]:
    """The clips of `rows`, with the places of their frames. DataError names the shard and what is wrong with it."""
    try:
        with tarfile.open(shard.path, "r:") as tar:
            members = {member.name: (member.offset_data, member.size) for member in tar}
        with shard.path.open("rb") as file:
            for row in rows:
                offset, size = _member(shard, members, f"{key(row)}.json")
                file.seek(offset)
                said = json.loads(file.read(size))
                names = _names(row, len(said["times"]), shard.format)
                frames = StoredFrames(
                    shard,
                    tuple(_member(shard, members, name) for name in names),
                    tuple(said.pop("times")),
                    tuple(said.pop("warnings")),
                )
                yield clip_from_record(said, frames)
    except (OSError, tarfile.TarError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{shard.path} is damaged ({error}); {MEND}") from error


def key(row: int) -> str:
    return f"{row:09d}"


def clip_record(clip: Clip, video: str) -> dict[str, Any]:
    fields = {name: value for name, value in vars(clip).items() if name != "stored"}
    return {**fields, "video": video, "captions": list(clip.captions)}


def clip_from_record(record: dict[str, Any], stored: StoredFrames) -> Clip:
    given = {**record, "video": Path(record["video"]), "captions": tuple(record["captions"])}
    return Clip(**given, stored=stored)


def _names(row: int, frames: int, format: Format) -> list[str]:
    if format == "npy":
        return [f"{key(row)}.npy"]
    return [f"{key(row)}.{number:03d}.jpg" for number in range(frames)]


def _member(shard: Shard, members: dict[str, tuple[int, int]], name: str) -> tuple[int, int]:
    if name not in members:
        raise DataError(f"{shard.path} lacks the member {name}; {MEND}")
    return members[name]


def _pictures(frames: Frames, seen: int, format: Format) -> Iterator[tuple[str, bytes]]:
    stream = BytesIO()
    if format == "npy":
        np.save(stream, frames.pixels[:seen])
        yield "npy", stream.getvalue()
        return
    for number, pixels in enumerate(frames.pixels[:seen]):
        stream = BytesIO()
        Image.fromarray(pixels).save(stream, "JPEG", quality=JPEG_QUALITY, subsampling=0)
        yield f"{number:03d}.jpg", stream.getvalue()


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    """With no time and no owner: they would differ from run to run."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, BytesIO(data))
