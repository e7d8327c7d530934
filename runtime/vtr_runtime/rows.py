"""Rows of embeddings, wherever they lie: what each is of, its vector, and its frames' vectors.

An index is written of such sources one block at a time, so that a million rows need no more memory than a thousand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Kind = Literal["video", "text"]
UNKNOWN = -1
"""Stands for a file's size and time where nobody wrote them down."""


@dataclass(frozen=True)
class RowTable:
    """What N rows are of. `paths` are file names as bytes, or sentences in UTF-8; `spans` float64 [N, 2] start and end
    in seconds (NaN: the file's own); `stamps` int64 [N, 2] the file's size in bytes and mtime in ns (-1: unknown)."""

    paths: Sequence[bytes]
    spans: NDArray[np.float64]
    stamps: NDArray[np.int64]


class RowSource(Protocol):
    """Rows of one model, in a fixed order. `name` is what messages call the source."""

    @property
    def name(self) -> str: ...

    @property
    def space(self) -> str: ...

    @property
    def kind(self) -> Kind: ...

    @property
    def dim(self) -> int: ...

    @property
    def frames(self) -> int | None:
        """T where the frames' embeddings are kept too."""
        ...

    @property
    def half(self) -> bool:
        """The vectors are kept in float16."""
        ...

    @property
    def table(self) -> RowTable: ...

    @property
    def failed(self) -> Mapping[bytes, str]:
        """Files that are no rows because they could not be embedded, and why."""
        ...

    @property
    def ids(self) -> NDArray[np.int64] | None:
        """Of rows that have them already, ascending."""
        ...

    @property
    def next_id(self) -> int:
        """Above every id that was ever given."""
        ...

    def vector_blocks(self) -> Iterator[NDArray[np.float32]]:
        """All vectors in the order of the rows: blocks float32 [n, D]."""
        ...

    def frame_blocks(self) -> Iterator[NDArray[np.float16]]:
        """All frames' vectors in the order of the rows: blocks float16 [n, T, D], zero where a frame is masked."""
        ...


@dataclass(frozen=True)
class EmbeddingTable:
    """Rows in memory: vectors float32 [N, D], stamps and frame_vectors float16 [N, T, D] where known; see RowTable."""

    vectors: NDArray[np.float32]
    paths: tuple[bytes, ...]
    spans: NDArray[np.float64]
    space: str
    stamps: NDArray[np.int64] | None = None
    frame_vectors: NDArray[np.float16] | None = None
    kind: Kind = "video"
    name: str = "rows"
    failed: Mapping[bytes, str] = field(default_factory=dict)
    half: bool = False
    ids: NDArray[np.int64] | None = None
    next_id: int = 0

    @property
    def dim(self) -> int:
        return int(self.vectors.shape[1])

    @property
    def frames(self) -> int | None:
        return None if self.frame_vectors is None else int(self.frame_vectors.shape[1])

    @property
    def table(self) -> RowTable:
        stamps = np.full((len(self.paths), 2), UNKNOWN, np.int64) if self.stamps is None else self.stamps
        return RowTable(self.paths, self.spans, stamps)

    def vector_blocks(self) -> Iterator[NDArray[np.float32]]:
        yield self.vectors

    def frame_blocks(self) -> Iterator[NDArray[np.float16]]:
        if self.frame_vectors is not None:
            yield self.frame_vectors
