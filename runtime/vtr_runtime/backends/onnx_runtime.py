"""ONNX Runtime on the CPU."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..bundle import Bundle
from ..errors import BackendError, UsageError
from ..manifest import GraphSpec
from .base import NO_SECOND_STAGE, PrecisionError

PACKAGES = ("onnxruntime", "onnxruntime-gpu")
EMULATED = "ONNX Runtime's CPU provider emulates fp16 in fp32, where nothing overflows: no proof of fp16"
NO_KERNELS = (
    "ONNX Runtime's CPU provider has no bf16 kernels; run this bundle on a backend that has, or export it in fp32"
)


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
    """The bundle's graphs, each in a session of its own. A session may be run from many threads."""

    name = "onnx-cpu"
    text_rows = 16

    def __init__(self, bundle: Bundle, *, threads: int | None = None) -> None:
        """PrecisionError for graphs in bf16, which this provider cannot run, and for what of fp16 it cannot emulate."""
        self._ort = import_onnxruntime()
        self._threads = threads
        self.runs_precision = bundle.manifest.graph_precision
        if self.runs_precision == "bf16":
            raise PrecisionError(NO_KERNELS)
        self.precision_note = EMULATED if self.runs_precision == "fp16" else None
        graphs = bundle.manifest.graphs
        self._video = self._open(bundle, graphs.video)
        self._text = self._open(bundle, graphs.text)
        self._rerank = self._open(bundle, graphs.rerank) if graphs.rerank is not None else None

    def video(self, frames: NDArray[np.uint8], mask: NDArray[np.bool_]) -> dict[str, NDArray[np.float32]]:
        return self._run(self._video, {"frames": frames, "frame_mask": mask})

    def text(self, ids: NDArray[np.int32]) -> dict[str, NDArray[np.float32]]:
        return self._run(self._text, {"input_ids": ids})

    def rerank(self, feed: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
        if self._rerank is None:
            raise UsageError(NO_SECOND_STAGE)
        return self._run(self._rerank, feed)["scores"]

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
            reason = f"onnxruntime {self._ort.__version__} cannot load {path}: {error}"
            # Seen: its own LayerNorm fusion writes a node that it then refuses, from a sound graph of fp16 and fp32.
            raise (BackendError if self.precision_note is None else PrecisionError)(reason) from error
        session.disable_fallback()
        return session

    def _run(self, session: Any, feed: dict[str, Any]) -> dict[str, NDArray[np.float32]]:
        names = [output.name for output in session.get_outputs()]
        try:
            return dict(zip(names, session.run(names, feed), strict=True))
        except Exception as error:
            raise BackendError(f"onnxruntime failed while running a graph: {error}") from error
