"""The Python runtime as a host, on any of its backends."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vtr_runtime.backends import PrecisionError, open_backend
from vtr_runtime.bundle import Bundle
from vtr_runtime.errors import BackendError, UnavailableError
from vtr_runtime.golden import exact_times, frame_digests
from vtr_runtime.manifest import Precision
from vtr_runtime.model import Model
from vtr_runtime.video import packet_times, read_frames, read_rgb

from ..cases import Case
from .base import Arrays, Host


class RuntimeHost(Host):
    """Feeds each stage with the case's own inputs through the runtime's public parts."""

    name = "vtr-runtime"

    def __init__(self, model: Model) -> None:
        self.model = model
        self.backend = model.backend.name
        self.precision = model.backend.runs_precision
        self.note = model.backend.precision_note
        self.version = version("vtr-runtime")

    def answer(self, case: Case) -> Arrays | str:
        if case.media is not None:
            return self._answer_media(case.stage, case.media)
        if case.stage == "ids":
            return {"ids": self.model.tokenize(case.texts)}
        return self.answer_in_graph(case.stage, case.arrays or {})

    def run(self, graph: str, feed: Arrays) -> Arrays:
        backend = self.model.backend
        if graph == "rerank":
            return {"scores": backend.rerank(feed)}
        if graph == "video":
            return dict(backend.video(feed["frames"], feed["frame_mask"]))
        return dict(backend.text(feed["input_ids"]))

    def _answer_media(self, stage: str, path: Path) -> Arrays | str:
        spec = self.model.manifest.frames
        if stage == "container":
            return {"times": exact_times(packet_times(path))}
        if stage == "rgb":
            return {"sha256": frame_digests(read_rgb(path, spec).images)}
        frames = read_frames(path, spec)
        if stage == "indices":
            return {"times": frames.times, "mask": frames.mask}
        if stage == "pixels":
            return {"sha256": frame_digests(frames.pixels)}
        return self.answer_in_graph(stage, {"frames": frames.pixels[None], "frame_mask": frames.mask[None]})


class _Absent:
    """Stands where a backend would that this machine, or the bundle's precision, does not have: frames and words need
    no graph."""

    text_rows = 1

    def __init__(self, name: str, precision: Precision, reason: str) -> None:
        self.name, self.runs_precision = name, precision
        self.precision_note: str | None = reason

    def video(self, frames: NDArray[np.uint8], mask: NDArray[np.bool_]) -> dict[str, NDArray[np.float32]]:  # noqa: ARG002
        raise BackendError(self.precision_note)

    def text(self, ids: NDArray[np.int32]) -> dict[str, NDArray[np.float32]]:  # noqa: ARG002
        raise BackendError(self.precision_note)

    def rerank(self, feed: dict[str, NDArray[Any]]) -> NDArray[np.float32]:  # noqa: ARG002
        raise BackendError(self.precision_note)


def open_runtime(bundle: Bundle, backend: str) -> RuntimeHost:
    """The runtime on a backend; where it cannot be had here, or has no kernels for the bundle's precision, only what
    needs no graph is answered, and the rest is not run, with the reason.

    BackendError and UsageError as open_backend for all else."""
    try:
        return RuntimeHost(Model(bundle, *open_backend(bundle, backend)))
    except (PrecisionError, UnavailableError) as error:
        absent = _Absent(backend, bundle.manifest.graph_precision, str(error))
        return RuntimeHost(Model(bundle, absent, backend))
