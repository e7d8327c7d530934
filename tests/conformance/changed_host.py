"""A host that makes a mistake on purpose, for tests of what must find it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from vtr_conformance.hosts import RuntimeHost
from vtr_conformance.hosts.base import Arrays
from vtr_runtime.model import Model

Change = Callable[[str, Arrays, np.ndarray], np.ndarray]


class Changed(RuntimeHost):
    """The runtime with the embeddings of its graphs changed: change(graph, feed, embeddings)."""

    def __init__(self, model: Model, change: Change) -> None:
        super().__init__(model)
        self._change = change

    def run(self, graph: str, feed: Arrays) -> Arrays:
        outputs = super().run(graph, feed)
        return {**outputs, "embedding": self._change(graph, feed, outputs["embedding"].copy())}
