"""From a backend's name to the backend, or to the reason why it cannot be had."""

from __future__ import annotations

from ..bundle import Bundle
from ..errors import UsageError
from .base import Backend

BACKENDS = ("onnx-cpu", "openvino")


def open_backend(bundle: Bundle, name: str = "auto", *, threads: int | None = None) -> tuple[Backend, str]:
    """Open what was asked for and say in words what runs. `threads` limits the engine's own threads."""
    if name not in ("auto", *BACKENDS):
        raise UsageError(f"there is no backend '{name}'; choose from: auto, {', '.join(BACKENDS)}")
    chosen, reason = (name, "asked for") if name != "auto" else _choose(bundle)
    backend: Backend
    if chosen == "openvino":
        from .openvino import OpenVinoBackend

        backend = OpenVinoBackend(bundle, threads=threads)
    else:
        from .onnx_runtime import OnnxRuntimeBackend

        backend = OnnxRuntimeBackend(bundle, threads=threads)
    return backend, f"{chosen} ({reason})"


def _choose(bundle: Bundle) -> tuple[str, str]:
    manifest = bundle.manifest
    if manifest.precision != manifest.graph_precision:
        return "openvino", f"auto: {manifest.precision} is a hint in this bundle, which OpenVINO alone takes"
    return "onnx-cpu", "auto: the CPU graphs are what this bundle and version can run"
