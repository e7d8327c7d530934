"""PyTorch as a host: the trained model itself, fed by the runtime's frames and tokens as in training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vtr_export.model.checkpoint import Checkpoint, load_checkpoint
from vtr_export.model.dits import without_evaluation_noise
from vtr_runtime.bundle import Bundle
from vtr_runtime.errors import CheckpointError

from ..cases import Case
from ..results import REFERENCE
from .base import Arrays, Host


def load_own_checkpoint(checkpoint: Path, bundle: Bundle) -> Checkpoint:
    """The checkpoint that a bundle was exported from, without noise as in the graphs. CheckpointError for another."""
    loaded = load_checkpoint(checkpoint)
    if loaded.weights_sha256 != bundle.manifest.weights_sha256:
        raise CheckpointError(
            f"{checkpoint} is not the checkpoint that {bundle.folder} was exported from; give that one"
        )
    without_evaluation_noise(loaded.model.eval())
    return loaded


class TorchHost(Host):
    """Answers the stages inside the model, without noise as in the graphs; the stages before are the runtime's own."""

    name = REFERENCE
    backend = "torch"
    precision = "fp32"

    def __init__(self, checkpoint: Path, bundle: Bundle) -> None:
        self._with_words = any(t.name == "word_embeddings" for t in bundle.manifest.graphs.text.outputs)
        self.model = load_own_checkpoint(checkpoint, bundle).model

    def answer(self, case: Case) -> Arrays | str:
        if case.arrays is None:
            return "PyTorch answers the stages inside the model only"
        return self.answer_in_graph(case.stage, case.arrays)

    def run(self, graph: str, feed: Arrays) -> Arrays:
        tensors = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in feed.items()}
        with torch.inference_mode():
            if graph == "rerank":
                return {"scores": self._rerank(tensors).numpy()}
            if graph == "video":
                stages = self.model.video.stages(tensors["frames"], tensors["frame_mask"])
            else:
                stages = self.model.text.stages(tensors["input_ids"])
                if self._with_words:
                    found = self.model.text.with_words(tensors["input_ids"])
                    stages |= {"word_embeddings": found.words, "word_mask": found.word_mask}
        return {
            "embedding" if name in ("aligned", "video_embedding") else name: tensor.numpy()
            for name, tensor in stages.items()
        }

    def _rerank(self, feed: dict[str, Tensor]) -> Tensor:
        """Scores [K] of one query, given to the model as a batch of one."""
        assert self.model.rerank is not None  # the manifest, written from this checkpoint, names a second stage
        # A score that is not over words gets the sentence for its only one, and does not look at it.
        words = feed.get("word_embeddings", feed["embedding"][None])
        weights = feed.get("word_weights", torch.ones(len(words)))
        if "word_mask" in feed:
            weights = weights * feed["word_mask"]
        query = (feed["embedding"][None], words[None], weights[None])
        scores: Tensor = self.model.rerank(*query, feed["frame_embeddings"], feed["frame_mask"])
        return scores[0]
