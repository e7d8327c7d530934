"""Hosts answer cases: each turns a stage's inputs into its outputs, or says that it has no such stage."""

from __future__ import annotations

from vtr_runtime.bundle import Bundle
from vtr_runtime.manifest import Manifest

from .base import Host
from .runtime import RuntimeHost, open_runtime

__all__ = ["TYPED_GRAPH", "Host", "RuntimeHost", "default_backends", "open_host"]

TYPED_GRAPH = "typed-graph"


def default_backends(manifest: Manifest) -> tuple[str, ...]:
    """What a bundle is checked on unless told otherwise."""
    return ("auto", TYPED_GRAPH) if manifest.graph_precision in ("fp16", "bf16") else ("auto",)


def open_host(bundle: Bundle, backend: str) -> RuntimeHost:
    """The runtime on one of its backends, or on the graphs' exact types (`typed-graph`, which needs PyTorch)."""
    if backend != TYPED_GRAPH:
        return open_runtime(bundle, backend)
    from .typed_graph import TypedGraphHost

    return TypedGraphHost(bundle)
