"""Sentences as rows: one a line of a text file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..rows import EmbeddingTable


def read_sentences(path: Path) -> list[str]:
    """The lines of a UTF-8 file, without empty ones and without those that came before. DataError where it has none."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); give a text file with a sentence a line") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 ({error.reason} at byte {error.start}); convert it first") from error
    found = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not found:
        raise DataError(f"{path} holds no sentence; write one a line")
    return found


def sentence_rows(texts: Sequence[str], vectors: NDArray[np.float32], space: str, name: str) -> EmbeddingTable:
    """Rows that are sentences; vectors float32 [N, D]."""
    paths = tuple(text.encode() for text in texts)
    return EmbeddingTable(vectors, paths, np.full((len(texts), 2), np.nan), space, kind="text", name=name)
