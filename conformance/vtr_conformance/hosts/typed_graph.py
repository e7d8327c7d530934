"""The bundle's graphs run node by node in exactly their declared types, by PyTorch: the proof of fp16 and bf16 where no
engine at hand computes in them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vtr_export.precision.execute import TypedGraph
from vtr_runtime.backends.base import NO_SECOND_STAGE
from vtr_runtime.bundle import Bundle
from vtr_runtime.errors import UsageError
from vtr_runtime.model import Model
from vtr_runtime.stages import BEFORE_THE_GRAPHS

from ..cases import Case
from .base import Arrays
from .runtime import RuntimeHost


class TypedBackend:
    """TypedGraph behind the runtime's interface of a backend."""

    name = "torch"
    text_rows = 16
    precision_note: str | None = None

    def __init__(self, bundle: Bundle) -> None:
        self.runs_precision = bundle.manifest.graph_precision
        graphs = bundle.manifest.graphs.named()
        self._graphs: dict[str, TypedGraph] = {
            name: TypedGraph(bundle.file(graphs[name].file)) for name in ("video", "text", "rerank") if name in graphs
        }

    def video(self, frames: NDArray[np.uint8], mask: NDArray[np.bool_]) -> dict[str, NDArray[np.float32]]:
        return self._run("video", {"frames": frames, "frame_mask": mask})

    def text(self, ids: NDArray[np.int32]) -> dict[str, NDArray[np.float32]]:
        return self._run("text", {"input_ids": ids})

    def rerank(self, feed: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
        if "rerank" not in self._graphs:
            raise UsageError(NO_SECOND_STAGE)
        return self._run("rerank", feed)["scores"]

    def _run(self, graph: str, feed: dict[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
        return dict(self._graphs[graph](feed))


class TypedGraphHost(RuntimeHost):
    """Answers the stages inside the graphs; those before are the runtime's own, whatever the backend."""

    name = "typed-graph"

    def __init__(self, bundle: Bundle) -> None:
        super().__init__(Model(bundle, TypedBackend(bundle), "typed graph, by PyTorch"))

    def answer(self, case: Case) -> Arrays | str:
        if case.stage in BEFORE_THE_GRAPHS:
            return "the typed graph answers the stages inside the graphs only"
        return super().answer(case)
