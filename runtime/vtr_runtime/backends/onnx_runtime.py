"""ONNX Runtime on the CPU."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..bundle import Bundle
from ..errors import BackendError
from ..manifest import GraphSpec

PACKAGES = ("onnxruntime", "onnxruntime-gpu")


def installed_packages() -> list[str]:
    found = []
    for package in PACKAGES:
        try:
            version(package)
        except PackageNotFoundError:
            continue
        found.append(package)
    return found


def import_onnxruntime() -> Any:
    """The module, or one sentence about what to install or to remove: its two packages overwrite each other."""
    found = installed_packages()
    if len(found) > 1:
        raise BackendError(
            f"{' and '.join(found)} are both installed and overwrite each other; remove both and install one: "
            f"pip uninstall -y {' '.join(found)} && pip install 'vtr-runtime[cpu]'"
        )
    try:
        import onnxruntime
    except ImportError as error:
        raise BackendError(
            f"no inference engine is installed ({error}); install one: pip install 'vtr-runtime[cpu]'"
        ) from error
    return onnxruntime


class OnnxRuntimeBackend:
    """The bundle's two graphs in two sessions. A session may be run from many threads."""

    name = "onnx-cpu"

    def __init__(self, bundle: Bundle, *, threads: int | None = None) -> None:
        self._ort = import_onnxruntime()
        self._threads = threads
        graphs = bundle.manifest.graphs
        self._video = self._open(bundle, graphs.video)
        self._text = self._open(bundle, graphs.text)

    def video(self, frames: NDArray[np.uint8], mask: NDArray[np.bool_]) -> dict[str, NDArray[np.float32]]:
        return self._run(self._video, {"frames": frames, "frame_mask": mask})

    def text(self, ids: NDArray[np.int32]) -> dict[str, NDArray[np.float32]]:
        return self._run(self._text, {"input_ids": ids})

    def _open(self, bundle: Bundle, graph: GraphSpec) -> Any:
        options = self._ort.SessionOptions()
        options.log_severity_level = 3
        # Shapes change from call to call: a memory pattern kept per shape would grow without end.
        options.enable_mem_pattern = False
        if self._threads is not None:
            options.intra_op_num_threads = self._threads
        path = bundle.file(graph.file)
        try:
            session = self._ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise BackendError(f"onnxruntime {self._ort.__version__} cannot load {path}: {error}") from error
        session.disable_fallback()
        return session

    def _run(self, session: Any, feed: dict[str, Any]) -> dict[str, NDArray[np.float32]]:
        names = [output.name for output in session.get_outputs()]
        try:
            return dict(zip(names, session.run(names, feed), strict=True))
        except Exception as error:
            raise BackendError(f"onnxruntime failed while running a graph: {error}") from error
