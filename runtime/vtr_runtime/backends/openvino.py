"""OpenVINO on the CPU, from the bundle's IR or else from its graphs."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..bundle import Bundle
from ..engines.record import ENGINES, check_record, find_engines, rebuild_command
from ..errors import BackendError, UsageError
from ..openvino import compile_graph, import_openvino
from ..precision import precision_of_graph
from .base import NO_SECOND_STAGE, PrecisionError


class OpenVinoBackend:
    """The bundle's graphs, compiled in the bundle's precision. Each thread has inference requests of its own."""

    name = "openvino"
    text_rows = 64
    precision_note: str | None = None

    def __init__(self, bundle: Bundle, *, threads: int | None = None) -> None:
        """PrecisionError for typed graphs of fp16 or bf16: OpenVINO takes fp32 graphs and a hint."""
        manifest = bundle.manifest
        self.runs_precision = manifest.precision
        if manifest.graph_precision in ("fp16", "bf16"):
            raise PrecisionError(
                f"this bundle's graphs are {manifest.graph_precision}, and OpenVINO takes fp32 graphs and a hint; "
                "export a bundle for it: vtr-export --target openvino"
            )
        paths = _graph_files(bundle)
        self._compiled = {
            name: compile_graph(path, precision_of_graph(name, manifest.precision), threads=threads)
            for name, path in paths.items()
        }
        self._requests = threading.local()

    def video(self, frames: NDArray[np.uint8], mask: NDArray[np.bool_]) -> dict[str, NDArray[np.float32]]:
        return self._run("video", {"frames": frames, "frame_mask": mask})

    def text(self, ids: NDArray[np.int32]) -> dict[str, NDArray[np.float32]]:
        return self._run("text", {"input_ids": ids})

    def rerank(self, feed: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
        if "rerank" not in self._compiled:
            raise UsageError(NO_SECOND_STAGE)
        return self._run("rerank", feed)["scores"]

    def _run(self, name: str, feed: dict[str, Any]) -> dict[str, NDArray[np.float32]]:
        compiled = self._compiled[name]
        requests = vars(self._requests)
        if name not in requests:
            requests[name] = compiled.create_infer_request()
        _check_inputs(name, compiled, feed)
        try:
            found = requests[name].infer({key: np.ascontiguousarray(value) for key, value in feed.items()})
        except RuntimeError as error:
            raise BackendError(f"OpenVINO failed while running {name}: {error}") from error
        # The request's own memory is written anew by the next call.
        return {output.get_any_name(): np.array(found[output]) for output in compiled.outputs}


def _check_inputs(name: str, compiled: Any, feed: dict[str, Any]) -> None:
    """BackendError for what OpenVINO would take without a word: it casts, gives empty outputs for another shape, and
    runs a missing input from the memory of the last call."""
    openvino = import_openvino()
    for port in compiled.inputs:
        given, wanted = feed.get(port.get_any_name()), port.get_partial_shape()
        if given is None or not wanted.compatible(openvino.PartialShape(given.shape)):
            found = "is missing" if given is None else f"has the shape {given.shape}"
            raise BackendError(f"{name}: input {port.get_any_name()} {found}; the graph takes {wanted}")
        if given.dtype != port.get_element_type().to_dtype():
            wanted_type = port.get_element_type().to_dtype()
            raise BackendError(f"{name}: input {port.get_any_name()} is {given.dtype}; the graph takes {wanted_type}")


def _graph_files(bundle: Bundle) -> dict[str, Path]:
    """By graph: its IR where the bundle holds one that fits this machine and version, else the ONNX file."""
    manifest = bundle.manifest
    for folder, record in find_engines(bundle.folder / ENGINES):
        if record.target == "openvino" and record.precision == manifest.precision:
            version = import_openvino().__version__
            check_record(record, manifest, None, folder=folder, bundle=bundle.folder, library_version=version)
            return {name: folder / f"{name}.xml" for name in manifest.graphs.named()}
    if any(graph.precise for graph in manifest.graphs.named().values()):
        raise BackendError(
            f"{bundle.folder} keeps some layers in fp32, which its OpenVINO engine says and it has none; "
            f"build it: {rebuild_command(bundle.folder, 'openvino')}"
        )
    return {name: bundle.file(graph.file) for name, graph in manifest.graphs.named().items()}
