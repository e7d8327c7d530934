"""ONNX Runtime on the CPU, and what its providers share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..bundle import Bundle
from ..errors import BackendError, UnavailableError, UsageError
from ..manifest import GraphSpec
from .base import Arrays, DeviceTensor, GraphBackend, PrecisionError
from .dlpack import CPU
from .environment import ORT_PACKAGES, package_version

EMULATED = "ONNX Runtime's CPU provider emulates fp16 in fp32, where nothing overflows: no proof of fp16"
NO_KERNELS = (
    "ONNX Runtime's CPU provider has no bf16 kernels; run this bundle on a backend that has, or export it in fp32"
)


def installed_packages() -> list[str]:
    return [package for package in ORT_PACKAGES if package_version(package)]


def import_onnxruntime(extra: str = "cpu") -> Any:
    """The module, or one sentence about what to install or to remove: its two packages overwrite each other."""
    found = installed_packages()
    if len(found) > 1:
        raise BackendError(
            f"{' and '.join(found)} are both installed and overwrite each other; remove both and install one: "
            f"pip uninstall -y {' '.join(found)} && pip install 'vtr-runtime[{extra}]'"
        )
    try:
        import onnxruntime
    except ImportError as error:
        raise UnavailableError(
            f"no inference engine is installed ({error}); install one: pip install 'vtr-runtime[{extra}]'"
        ) from error
    return onnxruntime


def session_options(ort: Any) -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    # Shapes change from call to call: a memory pattern kept per shape would grow without end.
    options.enable_mem_pattern = False
    return options


def run_session(session: Any, feed: Mapping[str, Any]) -> Arrays:
    names = [output.name for output in session.get_outputs()]
    try:
        return dict(zip(names, session.run(names, feed), strict=True))
    except Exception as error:
        raise BackendError(f"onnxruntime failed while running a graph: {error}") from error


class OnnxRuntimeBackend(GraphBackend):
    """The bundle's graphs, each in a session of its own. A session may be run from many threads."""

    name = "onnx-cpu"
    text_rows = 16
    device = (CPU, 0)

    def __init__(self, bundle: Bundle, *, threads: int | None = None, spin: bool = True) -> None:
        """PrecisionError for graphs in bf16, which this provider cannot run, and for what of fp16 it cannot emulate."""
        super().__init__(bundle.manifest)
        self._ort = import_onnxruntime()
        self._threads, self._spin = threads, spin
        self.runs_precision = bundle.manifest.graph_precision
        if self.runs_precision == "bf16":
            raise PrecisionError(NO_KERNELS)
        self.precision_note = EMULATED if self.runs_precision == "fp16" else None
        self._sessions = {name: self._open(bundle, spec) for name, spec in self._specs.items()}

    def run_on_device(self, graph: str, feed: Mapping[str, DeviceTensor]) -> dict[str, DeviceTensor]:
        """As `_run`, for tensors of the CPU whose owner is not numpy; what comes out are numpy's arrays."""
        return {**self._run(self._known(graph), {name: self.fetch(tensor) for name, tensor in feed.items()})}

    def fetch(self, tensor: DeviceTensor) -> NDArray[Any]:
        try:
            return np.from_dlpack(tensor)
        except (AttributeError, BufferError, RuntimeError, TypeError) as error:
            raise UsageError(f"{self.name} takes tensors with __dlpack__ that lie on the CPU ({error})") from error

    def _open(self, bundle: Bundle, graph: GraphSpec) -> Any:
        options = session_options(self._ort)
        options.add_session_config_entry("session.intra_op.allow_spinning", "1" if self._spin else "0")
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

    def _run(self, graph: str, feed: Arrays) -> dict[str, NDArray[np.float32]]:
        return run_session(self._sessions[graph], feed)
