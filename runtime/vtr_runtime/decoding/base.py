"""What the pipeline asks of a decoder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from ..errors import MediaError
from ..manifest import FrameSpec
from ..sampling import Windows
from ..video import Frames

# Start and end in seconds; None: the file's own.
Cut = tuple[float | None, float | None]


class Decoder(Protocol):
    """Called from many threads at once; what it holds is let go by `close`."""

    def windows(self, path: Path, windows: Windows) -> list[Cut]:
        """The file's windows that hold a frame. MediaError for what is no video."""
        ...

    def read(self, path: Path, spec: FrameSpec, cuts: Sequence[Cut]) -> list[Frames | MediaError]:
        """The frames of each part, or why there are none."""
        ...

    def close(self) -> None: ...
