"""Hosts answer cases: each turns a stage's inputs into its outputs, or says that it has no such stage."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path

from vtr_runtime.backends import BACKENDS
from vtr_runtime.bundle import Bundle
from vtr_runtime.errors import UsageError
from vtr_runtime.manifest import Manifest

from .base import Host
from .errors import HostError
from .process import ProcessHost, ProcessOptions
from .runtime import RuntimeHost, open_runtime

__all__ = [
    "TYPED_GRAPH",
    "Host",
    "HostError",
    "ProcessHost",
    "ProcessOptions",
    "RuntimeHost",
    "default_backends",
    "open_command",
    "open_host",
    "open_in_process",
]

TYPED_GRAPH = "typed-graph"


def default_backends(manifest: Manifest) -> tuple[str, ...]:
    """What a bundle is checked on unless told otherwise."""
    return ("auto", TYPED_GRAPH) if manifest.graph_precision in ("fp16", "bf16") else ("auto",)


def check_backend(name: str) -> None:
    known = ("auto", *BACKENDS, TYPED_GRAPH)
    if name not in known:
        raise UsageError(f"there is no backend '{name}'; choose from: {', '.join(known)}")


def open_host(bundle: Bundle, backend: str, options: ProcessOptions | None = None) -> ProcessHost:
    """`open_in_process` in a process of its own, so that a backend that crashes or hangs takes nothing along."""
    check_backend(backend)
    command = [sys.executable, "-m", f"{__name__}.serve", "--backend", backend]
    # PYTHONSAFEPATH: a module in the folder that the user happens to stand in is not ours.
    environment = {**os.environ, "PYTHONSAFEPATH": "1"}
    name = TYPED_GRAPH if backend == TYPED_GRAPH else RuntimeHost.name
    return ProcessHost(command, bundle, name=name, backend=backend, options=options, environment=environment)


def open_command(bundle: Bundle, command: str, options: ProcessOptions | None = None) -> ProcessHost:
    """A command of the user's, `{bundle}` in it replaced by the bundle's folder. UsageError where there is none."""
    try:
        words = [word.replace("{bundle}", str(bundle.folder.absolute())) for word in shlex.split(command)]
    except ValueError as error:
        raise UsageError(f"--host {command!r} is no command ({error}); quote it as in a shell") from error
    if not words or shutil.which(words[0]) is None:
        raise UsageError(f"--host {command!r}: there is no program {words[0] if words else ''!r}; give its path")
    # Folders of this machine have no place in a report.
    told = " ".join(Path(word).name for word in shlex.split(command))
    return ProcessHost(words, bundle, name=Path(words[0]).name, backend=told, options=options)


def open_in_process(bundle: Bundle, backend: str) -> RuntimeHost:
    """The runtime on one of its backends, or on the graphs' exact types (`typed-graph`, which needs PyTorch)."""
    if backend != TYPED_GRAPH:
        return open_runtime(bundle, backend)
    from .typed_graph import TypedGraphHost

    return TypedGraphHost(bundle)
