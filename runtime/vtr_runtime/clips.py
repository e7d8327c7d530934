"""What is embedded and what became of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Clip:
    """A video file, or the part of it from `start` up to `end` (seconds)."""

    path: Path
    start: float | None = None
    end: float | None = None


@dataclass(frozen=True)
class FileStamp:
    """Size in bytes and time of the last change in nanoseconds: a file that keeps both is taken to be unchanged."""

    size: int
    mtime_ns: int

    @classmethod
    def of(cls, path: Path) -> FileStamp | None:
        """None where the file is not there, or may not be seen."""
        try:
            found = path.stat()
        except OSError:
            return None
        return cls(found.st_size, found.st_mtime_ns)


@dataclass(frozen=True)
class EmbeddedClip:
    """What became of one clip. `embedding` (float32 [D], unit length) is None exactly when `status` is "error".

    `times` are those of the frames that were seen. `frame_embeddings` (float32 [T, D], zero where masked) are there
    where the bundle has a second stage. `stamp` is the file's before it was read; None where it could not be had."""

    clip: Clip
    status: Literal["ok", "warning", "error"]
    message: str = ""
    embedding: NDArray[np.float32] | None = None
    times: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    frame_embeddings: NDArray[np.float32] | None = None
    stamp: FileStamp | None = None
