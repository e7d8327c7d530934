"""A clip of a data set, whatever it was read from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .stored import StoredFrames

SPLITS = ("train", "val", "test")
DECODE_SECONDS = 300.0
"""That decoding a clip may take; twelve frames of an hour of video take some ten."""


@dataclass(frozen=True)
class Clip:
    """A video, or the part of it from `start` up to `end` (seconds), and what is said about it.

    `id` is its name in the data set; `source` names what it was cut from, where the data set says so. `group` and
    `kind`: see record.py. `stored`: its frames were sampled before (see prepare.py), and `video` is only a name."""

    video: Path
    captions: tuple[str, ...]
    split: str
    start: float | None = None
    end: float | None = None
    group: str | None = None
    kind: str | None = None
    id: str = ""
    source: str | None = None
    stored: StoredFrames | None = None
