"""What the suite and a host in a process of its own tell each other: a line of JSON each way, arrays in safetensors
files. docs/certify-a-host.md describes it for those who write a host."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load_file

from vtr_runtime.console import printable
from vtr_runtime.manifest import Precision
from vtr_runtime.publish import storage_errors
from vtr_runtime.tensor_file import save_tensors

from .base import Arrays
from .errors import HostProtocolError

PROTOCOL = 1
# A line of a host holds a few words; what is longer is no answer.
MAX_LINE = 1 << 20
# Of a line that is no answer, in the message about it.
SHOWN = 200


class _Reply(BaseModel):
    """Keys of a later version are passed over; those of this one have exactly their types."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")


R = TypeVar("R", bound=_Reply)


class Hello(_Reply):
    """Who a host is. `stages` are those that it answers itself, `graphs` those that it runs; see Host for the rest."""

    protocol: int
    name: str = Field(min_length=1)
    backend: str = Field(min_length=1)
    precision: Precision
    version: str = ""
    note: str | None = None
    stages: list[str] = []
    graphs: list[str] = []


class Answered(_Reply):
    """The tensors lie in the file that was asked for; `seconds` is what they took."""

    seconds: float = Field(ge=0, allow_inf_nan=False)


class NotRun(_Reply):
    not_run: str = Field(min_length=1)


class Failed(_Reply):
    error: str = Field(min_length=1)


def encode(message: Mapping[str, Any]) -> bytes:
    """One line, ASCII alone."""
    return json.dumps(message).encode("ascii") + b"\n"


def decode(line: bytes) -> dict[str, Any]:
    """HostProtocolError for what is no line with a JSON object."""
    shown = printable(line[:SHOWN].decode("utf-8", "replace").rstrip("\n"))
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):  # what is no UTF-8 is a ValueError too
        message = None
    if not isinstance(message, dict):
        raise HostProtocolError(
            f"it wrote {shown!r} to standard output, which is for the protocol alone: "
            "one JSON object a line; print everything else to standard error"
        )
    return message


def read_hello(message: dict[str, Any]) -> Hello | Failed:
    if "error" in message:
        return _parse(Failed, message)
    found = _parse(Hello, message)
    if found.protocol != PROTOCOL:
        raise HostProtocolError(
            f"it speaks version {found.protocol} of the protocol and this suite version {PROTOCOL}; "
            "take a host and a vtr-export that speak the same"
        )
    return found


def read_reply(message: dict[str, Any]) -> Answered | NotRun | Failed:
    if "error" in message:
        return _parse(Failed, message)
    if "not_run" in message:
        return _parse(NotRun, message)
    return _parse(Answered, message)


def _parse(kind: type[R], message: dict[str, Any]) -> R:
    try:
        return kind.model_validate(message)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        shown = printable(json.dumps(message)[:SHOWN])
        raise HostProtocolError(f"its answer {shown} is wrong at '{where}': {first['msg']}") from error


def write_tensors(path: Path, tensors: Arrays) -> None:
    """StorageError where the disk is full."""
    with storage_errors(path):
        save_tensors(path, {name: np.asarray(array, order="C") for name, array in tensors.items()})


def read_tensors(path: Path) -> Arrays:
    """HostProtocolError for a file that is absent or no safetensors file that numpy can hold."""
    if not path.is_file():
        raise HostProtocolError(f"it answered and did not write {path.name}, the file that was asked for")
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise HostProtocolError(f"{path.name} that it wrote is not a safetensors file: {error}") from error


def check_tensor(name: str, array: NDArray[Any], dtype: str, shape: tuple[int | None, ...]) -> None:
    """HostProtocolError for another dtype or shape; None stands for any size."""
    fits = len(array.shape) == len(shape) and all(
        wanted in (None, size) for size, wanted in zip(array.shape, shape, strict=True)
    )
    if array.dtype != dtype or not fits:
        sizes = ", ".join("any" if size is None else str(size) for size in shape)
        raise HostProtocolError(
            f"its tensor {name} is {array.dtype} {list(array.shape)}, and {dtype} [{sizes}] was asked for"
        )
