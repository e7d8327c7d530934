"""From a backend's name to the backend, or to the reason why it cannot be had."""

from __future__ import annotations

from ..bundle import Bundle
from ..errors import UsageError
from .base import Backend

BACKENDS = ("onnx-cpu",)


def open_backend(bundle: Bundle, name: str = "auto", *, threads: int | None = None) -> tuple[Backend, str]:
    """Open what was asked for and say in words what runs. `threads` limits the engine's own threads."""
    if name not in ("auto", *BACKENDS):
        raise UsageError(f"there is no backend '{name}'; choose from: auto, {', '.join(BACKENDS)}")
    from .onnx_runtime import OnnxRuntimeBackend

    reason = "asked for" if name != "auto" else "auto: the CPU graphs are what this bundle and version can run"
    return OnnxRuntimeBackend(bundle, threads=threads), f"onnx-cpu ({reason})"
