"""Which operators stand in one piece: as exported, and as ONNX Runtime rewrites the graph when it loads it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import onnx

from vtr_export.graph.fusion import find_operators
from vtr_runtime.backends.onnx_runtime import import_onnxruntime, session_options
from vtr_runtime.bundle import Bundle
from vtr_runtime.errors import BackendError

from .records import GraphOperators

if TYPE_CHECKING:
    from vtr_export.model.retrieval import RetrievalModel

# Weights of the rewritten graph lie apart, so that a graph above 2 GB can be written too; they are not read.
APART = {
    "session.optimized_model_external_initializers_file_name": "weights",
    "session.optimized_model_external_initializers_min_size_in_bytes": "1024",
}


def graph_operators(bundle: Bundle, model: RetrievalModel | None) -> tuple[list[GraphOperators], list[str]]:
    """The operators of every graph, and what could not be seen. `model` is the trained one, where it is at hand."""
    found, notes = [], []
    for name, spec in bundle.manifest.graphs.named().items():
        path = bundle.file(spec.file)
        rewritten, why = rewrite(path)
        if why:
            notes.append(f"{spec.file}: ONNX Runtime does not load it ({why})")
        expected = None if model is None else _expected(bundle, model, name)
        found.append(GraphOperators(name, count_operators(path), find_operators(path), expected, rewritten))
    return found, notes


def count_operators(path: Path) -> dict[str, int]:
    """By kind, `com.microsoft.BiasGelu` for one of another domain than ONNX's own; most frequent first."""
    nodes = onnx.load(path, load_external_data=False).graph.node
    return dict(Counter(f"{node.domain}.{node.op_type}".lstrip(".") for node in nodes).most_common())


def rewrite(path: Path) -> tuple[dict[str, int] | None, str]:
    """The operators after ONNX Runtime's own fusions for this CPU; or None, and why."""
    try:
        ort = import_onnxruntime()
    except BackendError as error:
        return None, str(error)
    options = session_options(ort)
    with TemporaryDirectory() as scratch:
        target = Path(scratch) / "rewritten.onnx"
        options.optimized_model_filepath = str(target)
        for key, value in APART.items():
            options.add_session_config_entry(key, value)
        try:
            ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime has an exception type for each of its status codes
            return None, _first_line(error)
        return count_operators(target), ""


def _expected(bundle: Bundle, model: RetrievalModel, name: str) -> dict[str, int]:
    from vtr_export.graph.modules import FrameGraph, RerankGraph, TemporalGraph
    from vtr_export.graphs import expected_in

    spec = bundle.manifest.graphs.named()[name]
    if name == "rerank":
        assert model.rerank is not None  # the manifest, written from this checkpoint, names a second stage
        return expected_in(RerankGraph(model.rerank, model.config.rerank), spec, model.config)
    parts = {"frames": FrameGraph(model.video), "temporal": TemporalGraph(model.video, ())}
    return expected_in(parts.get(name, model.video if name == "video" else model.text), spec, model.config)


def _first_line(error: Exception) -> str:
    lines: Sequence[str] = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
