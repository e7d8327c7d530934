"""Safetensors files: written with Python's own errors, streamed block by block, mapped into memory."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from .publish import umask

_NAMES = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "I64": np.int64, "U8": np.uint8}


def save_tensors(path: Path, tensors: Mapping[str, NDArray[Any]], metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file. OSError where the disk refuses: safetensors only puts the number into its text."""
    try:
        save_file(dict(tensors), path, metadata)
        path.chmod(0o666 & ~umask())  # safetensors leaves it to its owner alone
    except SafetensorError as error:
        if number := re.search(r"os error (\d+)", str(error)):
            raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error
        raise


@dataclass(frozen=True)
class TensorStream:
    """A tensor whose values come in blocks, in order; together they fill `shape`."""

    name: str
    dtype: DTypeLike
    shape: Sequence[int]
    blocks: Iterable[NDArray[Any]]

    @property
    def size(self) -> int:
        """In bytes."""
        return np.dtype(self.dtype).itemsize * int(np.prod(self.shape, dtype=np.int64))


def stream_tensors(path: Path, streams: Sequence[TensorStream], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file without holding its tensors. They lie in the order given: give wide types first, as
    safetensors does, and each begins where its type may. ValueError when blocks do not fill their tensor."""
    kinds = {np.dtype(kind): name for name, kind in _NAMES.items()}
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    begin = 0
    for stream in streams:
        place = [begin, begin := begin + stream.size]
        header[stream.name] = {
            "dtype": kinds[np.dtype(stream.dtype)],
            "shape": list(stream.shape),
            "data_offsets": place,
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.unlink(missing_ok=True)  # who has mapped a file of this name, a source of the blocks maybe, keeps it whole
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for stream in streams:
            written = sum(file.write(np.ascontiguousarray(block, stream.dtype).data) for block in stream.blocks)
            if written != stream.size:
                raise ValueError(f"{stream.name} got {written} bytes and takes {stream.size}")


def map_tensors(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """The tensors of a safetensors file, read from disk as they are touched, and its metadata.

    SafetensorError for what is no whole safetensors file or holds types other than those above; OSError."""
    with safe_open(path, framework="numpy") as checked:  # the library's own checks of header, offsets and size
        metadata = checked.metadata() or {}
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    raw = np.asarray(np.memmap(path, np.uint8, "r"))
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        if entry["dtype"] not in _NAMES:
            raise SafetensorError(f"{name} is of type {entry['dtype']}")
        begin, end = (8 + length + offset for offset in entry["data_offsets"])
        tensors[name] = raw[begin:end].view(_NAMES[entry["dtype"]]).reshape(entry["shape"])
    return tensors, metadata
