"""OpenVINO on the CPU, from the bundle's IR or else from its graphs."""

from __future__ import annotations

import threading
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..bundle import Bundle
from ..engines.record import ENGINES, check_record, find_engines, rebuild_command
from ..errors import BackendError
from ..openvino import compile_graph, import_openvino
from ..precision import precision_of_graph
from .base import Arrays, GraphBackend, PrecisionError
from .shapes import Axes, Buckets, check_feed, padded, run_in_buckets

# The plug-in keeps kernels of every shape it ever met: 1,742 shapes of a small text tower took 350 MB, and there are
# more; those that these steps leave took 50 MB. Up to 8 rows, a video batch and its rests, every number has its own.
ROWS = (1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 24, 32, 48, 64)
TOKENS = 4  # a step of tokens; captions have 12 on average


class OpenVinoBackend(GraphBackend):
    """The bundle's graphs, compiled in the bundle's precision. Each thread has inference requests of its own."""

    name = "openvino"
    text_rows = 64
    precision_note: str | None = None

    def __init__(self, bundle: Bundle, *, threads: int | None = None, engine_dir: Path | None = None) -> None:
        """PrecisionError for typed graphs of fp16 or bf16: OpenVINO takes fp32 graphs and a hint."""
        manifest = bundle.manifest
        super().__init__(manifest)
        longest = manifest.text.context_length
        self._buckets = Buckets(ROWS, (*range(TOKENS, longest, TOKENS), longest))
        self.runs_precision = manifest.precision
        if manifest.graph_precision in ("fp16", "bf16"):
            raise PrecisionError(
                f"this bundle's graphs are {manifest.graph_precision}, and OpenVINO takes fp32 graphs and a hint; "
                "export a bundle for it: vtr-export --target openvino"
            )
        paths = _graph_files(bundle, engine_dir or bundle.folder / ENGINES)
        self._compiled = {
            name: compile_graph(path, precision_of_graph(name, manifest.precision), threads=threads)
            for name, path in paths.items()
            if name in self._specs
        }
        self._requests = threading.local()

    def _run(self, graph: str, feed: Arrays) -> dict[str, NDArray[np.float32]]:
        spec = self._specs[graph]
        axes = check_feed(graph, spec, feed)
        return run_in_buckets(spec, feed, axes, self._buckets, partial(self._infer, graph))

    def _infer(self, graph: str, feed: Arrays, axes: Axes, filled: Axes) -> Arrays:  # noqa: ARG002
        compiled = self._compiled[graph]
        requests = vars(self._requests)
        if graph not in requests:
            requests[graph] = compiled.create_infer_request()
        try:
            found = requests[graph].infer(padded(self._specs[graph], feed, filled))
        except RuntimeError as error:
            raise BackendError(f"OpenVINO failed while running {graph}: {error}") from error
        # The request's own memory is written anew by the next call.
        return {output.get_any_name(): np.array(found[output]) for output in compiled.outputs}


def _graph_files(bundle: Bundle, engine_dir: Path) -> dict[str, Path]:
    """By graph: its IR where the bundle holds one that fits this machine and version, else the ONNX file."""
    manifest = bundle.manifest
    for folder, record in find_engines(engine_dir):
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
