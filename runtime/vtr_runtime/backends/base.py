"""What every engine offers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ..engines.device import DeviceInfo
from ..errors import BackendError, UnavailableError, UsageError
from ..manifest import GraphSpec, Manifest, Precision

NO_SECOND_STAGE = "this bundle has no second stage; export it with --rerank"
# The graphs that a backend runs; `frames` and `temporal` are for hosts that keep single frames.
RUN = ("video", "text", "rerank")

Arrays = dict[str, NDArray[Any]]


class PrecisionError(BackendError):
    """An engine that has no kernels for a bundle's precision."""


@dataclass(frozen=True)
class BackendOptions:
    """How a backend is opened. One that has no use for an option leaves it alone; none changes what is computed."""

    threads: int | None = None  # of a CPU engine; None: one per core
    spin: bool = True  # ONNX Runtime on the CPU: idle threads spin, which answers sooner and costs decoders their cores
    allow_fallback: bool = False  # parts of a graph may run on another provider than the one asked for
    engine_dir: Path | None = None  # where engines lie; None: the bundle's folder engines
    device: int = 0  # the GPU, as the driver numbers them
    memory_limit: int | None = None  # bytes that ONNX Runtime's CUDA arena may take
    cuda_graphs: bool = True  # replay a captured graph a shape


class Backend(Protocol):
    """Runs the bundle's graphs. Safe to share between threads.

    `runs_precision` is what this backend computes this bundle in. `precision_note` says why what comes out is no proof
    of that precision (an emulation, say); None where it is one. `text_rows` is how many sentences at a time, sorted by
    length, cost least here (benchmarks/throughput)."""

    name: str
    runs_precision: Precision
    precision_note: str | None
    text_rows: int

    def video(self, frames: NDArray[np.uint8], mask: NDArray[np.bool_]) -> dict[str, NDArray[np.float32]]:
        """frames uint8 [B, T, S, S, 3] and mask bool [B, T] -> the graph's outputs by name; `embedding` is [B, D]."""
        ...

    def text(self, ids: NDArray[np.int32]) -> dict[str, NDArray[np.float32]]:
        """ids int32 [B, L] -> the graph's outputs by name; `embedding` is float32 [B, D]."""
        ...

    def rerank(self, feed: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
        """The second stage for one query: those inputs by name that the manifest lists for the graph, of `embedding`
        float32 [D], `word_embeddings` [L, D], `word_mask` bool [L], `word_weights` float32 [L], `frame_embeddings`
        [K, T, D] and `frame_mask` bool [K, T] -> scores float32 [K]. UsageError for a bundle without a second stage."""
        ...


@runtime_checkable
class DeviceTensor(Protocol):
    """What DLPack asks of a tensor: torch's, CuPy's, numpy's and the results of `run_on_device` have it."""

    def __dlpack__(self, *, stream: int | None = None) -> Any: ...

    def __dlpack_device__(self) -> tuple[Any, int]: ...


@runtime_checkable
class DeviceBackend(Protocol):
    """A backend that takes and gives tensors where they lie. `device` is their DLPack device: (type, index)."""

    device: tuple[int, int]

    def run_on_device(self, graph: str, feed: Mapping[str, DeviceTensor]) -> dict[str, DeviceTensor]:
        """Run a graph on tensors of `device`, C-contiguous and of the graph's types; no copy of them is made.

        The results are complete when this returns. UsageError for tensors of another device, BackendError for another
        shape or type."""
        ...

    def fetch(self, tensor: DeviceTensor) -> NDArray[Any]:
        """A tensor of `device` as an array of the host."""
        ...


def check_gpu(backend: str, index: int, found: DeviceInfo | None) -> DeviceInfo:
    """UnavailableError for a backend whose GPU is not there."""
    if found is None:
        raise UnavailableError(
            f"backend {backend} needs an NVIDIA GPU with its driver, and no GPU {index} was found; "
            "use --backend onnx-cpu or openvino here"
        )
    return found


class GraphBackend(ABC):
    """A backend whose graphs differ by their names alone. `notes` say where they run, beside the backend's name."""

    name: str
    runs_precision: Precision
    precision_note: str | None
    text_rows: int
    notes: tuple[str, ...] = ()

    def __init__(self, manifest: Manifest) -> None:
        named = manifest.graphs.named()
        self._specs: dict[str, GraphSpec] = {name: named[name] for name in RUN if name in named}

    def _known(self, graph: str) -> str:
        """UsageError for a graph that the bundle has not, or that is not run here."""
        if graph not in self._specs:
            raise UsageError(f"no graph '{graph}' is run of this bundle; choose from: {', '.join(self._specs)}")
        return graph

    @abstractmethod
    def _run(self, graph: str, feed: Arrays) -> dict[str, NDArray[np.float32]]: ...

    def video(self, frames: NDArray[np.uint8], mask: NDArray[np.bool_]) -> dict[str, NDArray[np.float32]]:
        return self._run("video", {"frames": frames, "frame_mask": mask})

    def text(self, ids: NDArray[np.int32]) -> dict[str, NDArray[np.float32]]:
        return self._run("text", {"input_ids": ids})

    def rerank(self, feed: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
        if "rerank" not in self._specs:
            raise UsageError(NO_SECOND_STAGE)
        return self._run("rerank", feed)["scores"]
