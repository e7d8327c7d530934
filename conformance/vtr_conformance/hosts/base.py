"""What every host offers."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..cases import Case

Arrays = dict[str, NDArray[Any]]


class Host(Protocol):
    name: str
    backend: str

    def answer(self, case: Case) -> Arrays | str:
        """The outputs of a case's stage, or in words why this host does not have the stage."""
        ...


def scores(texts: NDArray[np.float32], videos: NDArray[np.float32]) -> NDArray[np.float64]:
    """Cosines [texts, videos] in float64, so that the product adds no error of its own."""
    return texts.astype(np.float64) @ videos.astype(np.float64).T
