"""What every engine offers."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Backend(Protocol):
    """Runs the bundle's graphs. Safe to share between threads."""

    name: str

    def video(self, frames: NDArray[np.uint8], mask: NDArray[np.bool_]) -> dict[str, NDArray[np.float32]]:
        """frames uint8 [B, T, S, S, 3] and mask bool [B, T] -> the graph's outputs by name; `embedding` is [B, D]."""
        ...

    def text(self, ids: NDArray[np.int32]) -> dict[str, NDArray[np.float32]]:
        """ids int32 [B, L] -> the graph's outputs by name; `embedding` is float32 [B, D]."""
        ...
