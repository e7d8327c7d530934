"""Frames that were sampled before, in a shard: read by place, in any order, without decoding a video.

A shard is an uncompressed tar file, so a member's bytes lie in one piece at an offset that is found once."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, Literal, Protocol, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from vtr_runtime.clips import FileStamp
from vtr_runtime.errors import DataError
from vtr_runtime.manifest import FrameSpec, file_sha256
from vtr_runtime.video import Frames

from ..pool import count_cores

Format = Literal["npy", "jpeg"]
Rows = NDArray[np.int64] | slice


class Pixels(Protocol):
    """uint8 [N, T, S, S, 3] by clip: an array, or what reads as one."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    def __len__(self) -> int: ...
    @overload
    def __getitem__(self, rows: int) -> NDArray[np.uint8]: ...
    @overload
    def __getitem__(self, rows: Rows) -> NDArray[np.uint8]: ...


def frame_contract(spec: FrameSpec) -> dict[str, Any]:
    """What of `spec` stored pixels depend on: normalisation comes later."""
    return spec.model_dump(mode="json", exclude={"mean", "std"})


@dataclass(frozen=True)
class Shard:
    """A file of a prepared folder, and what its index says of it."""

    path: Path
    sha256: str
    bytes: int
    frames: FrameSpec
    format: Format

    def refuse_other(self, spec: FrameSpec) -> None:
        """DataError where the model takes frames of another contract."""
        held, wanted = frame_contract(self.frames), frame_contract(spec)
        differing = [f"{name} {held[name]}, not {wanted[name]}" for name in held if held[name] != wanted[name]]
        if differing:
            raise DataError(
                f"{self.path.parent} was prepared with other frames than the model takes ({', '.join(differing)}); "
                "prepare the data again with vtr-train prepare --recipe RECIPE"
            )

    def verify(self) -> None:
        """DataError where the file is not the one that was prepared. Its bytes are read once in a process."""
        stamp = FileStamp.of(self.path)
        if stamp is None:
            raise DataError(f"{self.path} is not there; {MEND}")
        if stamp.size != self.bytes:
            raise DataError(f"{self.path} has {stamp.size} bytes, not {self.bytes}; {MEND}")
        if _sha256(self.path, stamp) != self.sha256:
            raise DataError(f"{self.path} is damaged: its SHA-256 is not the index's; {MEND}")


MEND = "copy it again from where it was prepared, or prepare the data anew"


@cache
def _sha256(path: Path, _: FileStamp) -> str:
    return file_sha256(path)


@dataclass(frozen=True)
class StoredFrames:
    """Where the frames of one clip lie: `members` are (offset, bytes) of its .npy, or of each frame's JPEG.

    `error`: why there are none, in one sentence; `shard` is then the one that they would be in."""

    shard: Shard
    members: tuple[tuple[int, int], ...] = ()
    times: tuple[float, ...] = ()  # of the frames that there are
    warnings: tuple[str, ...] = ()
    error: str | None = None

    def read(self) -> Frames:
        """As `read_frames` gave them (JPEG: with its losses). DataError for a damaged shard."""
        count, size = self.shard.frames.count, self.shard.frames.size
        pixels = np.zeros((count, size, size, 3), np.uint8)
        self.read_into(pixels)
        times = np.full(count, np.nan)
        times[: len(self.times)] = self.times
        return Frames(pixels, self.mask, times, self.warnings)

    @property
    def mask(self) -> NDArray[np.bool_]:
        """[T], true where there is a frame: they come first."""
        return np.arange(self.shard.frames.count) < len(self.times)

    def read_into(self, out: NDArray[np.uint8]) -> None:
        """Fill the first of `out` [T, S, S, 3]; masked frames are left as they are."""
        read = READERS[self.shard.format]
        try:
            with self.shard.path.open("rb") as file:
                out[: len(self.times)] = read(file, self.members)
        except (OSError, ValueError, EOFError, UnidentifiedImageError) as error:
            raise DataError(f"{self.shard.path} is damaged at {self.members[0][0]} ({error}); {MEND}") from error


class StoredPixels:
    """The frames of clips in shards, read when they are asked for."""

    def __init__(self, stored: Sequence[StoredFrames], spec: FrameSpec) -> None:
        self._stored = stored
        self.shape: tuple[int, ...] = (len(stored), spec.count, spec.size, spec.size, 3)

    def __len__(self) -> int:
        return len(self._stored)

    @overload
    def __getitem__(self, rows: int) -> NDArray[np.uint8]: ...
    @overload
    def __getitem__(self, rows: Rows) -> NDArray[np.uint8]: ...
    def __getitem__(self, rows: int | Rows) -> NDArray[np.uint8]:
        chosen = [self._stored[row] for row in np.atleast_1d(np.arange(len(self))[rows]).tolist()]
        out = np.zeros((len(chosen), *self.shape[1:]), np.uint8)
        with ThreadPoolExecutor(count_cores()) as pool:  # files, and JPEG, are read without the interpreter's lock
            list(pool.map(StoredFrames.read_into, chosen, out))
        return out if isinstance(rows, slice | np.ndarray) else out[0]


def verify_shards(stored: Sequence[StoredFrames], spec: FrameSpec) -> None:
    """DataError for a shard of another frame contract, or one that is damaged."""
    for shard in dict.fromkeys(one.shard for one in stored):
        shard.refuse_other(spec)
        shard.verify()


def _read_npy(file: BinaryIO, members: Sequence[tuple[int, int]]) -> NDArray[np.uint8]:
    [(offset, _)] = members
    file.seek(offset)
    found: NDArray[np.uint8] = np.lib.format.read_array(file, allow_pickle=False)
    return found


def _read_jpeg(file: BinaryIO, members: Sequence[tuple[int, int]]) -> NDArray[np.uint8]:
    pictures = []
    for offset, size in members:
        file.seek(offset)
        pictures.append(np.asarray(Image.open(BytesIO(file.read(size))).convert("RGB")))
    return np.stack(pictures)


READERS = {"npy": _read_npy, "jpeg": _read_jpeg}
