"""What every host offers."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vtr_runtime.manifest import Precision

from ..cases import Case

Arrays = dict[str, NDArray[Any]]
# By graph the input by which a stage that needs it is known.
FEEDS = {"video": "frames", "text": "input_ids"}


class Host(ABC):
    """`precision` is what it computes in, and so whose limits it is held to; `note` says why what it computes is no
    proof of that precision, None where it is one. `version` is its own, where it tells one."""

    name: str
    backend: str
    precision: Precision
    note: str | None = None
    version: str = ""

    @abstractmethod
    def answer(self, case: Case) -> Arrays | str:
        """The outputs of a case's stage, or in words why this host does not have the stage."""

    def lacks(self, graph: str) -> str | None:  # noqa: ARG002
        """In words why nothing that this graph gives is to be asked for, None where it is."""
        return self.note

    @abstractmethod
    def run(self, graph: str, feed: Arrays) -> Arrays:
        """Run the graph of this name in the manifest: its outputs by name."""

    def timed(self, graph: str, feed: Arrays) -> tuple[Arrays, float]:
        """As `run`, and the seconds that the graph took."""
        start = time.perf_counter()
        found = self.run(graph, feed)
        return found, time.perf_counter() - start

    def close(self) -> None:  # noqa: B027  # most hold nothing
        """Let go what the host holds; it is asked nothing more."""

    def answer_in_graph(self, stage: str, arrays: Arrays) -> Arrays | str:
        """Answer a stage whose inputs are those of the graphs."""
        graphs = ("rerank",) if stage == "rerank" else [graph for graph, name in FEEDS.items() if name in arrays]
        for graph in graphs:
            if (why := self.lacks(graph)) is not None:
                return why
        if stage == "ranking":
            text = self.run("text", {"input_ids": arrays["input_ids"]})
            video = self.run("video", {name: arrays[name] for name in ("frames", "frame_mask")})
            return {"scores": scores(text["embedding"], video["embedding"])}
        if stage == "rerank":
            return {"scores": self.run("rerank", arrays)["scores"]}
        outputs = self.run(graphs[0], arrays)
        name = "embedding" if stage in ("aligned", "video_embedding") else stage
        if name not in outputs:
            return f"the graph has no output {name}; export with --debug-outputs to see it"
        return {name: outputs[name]}


def scores(texts: NDArray[np.float32], videos: NDArray[np.float32]) -> NDArray[np.float64]:
    """Cosines [texts, videos] in float64, so that the product adds no error of its own."""
    return texts.astype(np.float64) @ videos.astype(np.float64).T
