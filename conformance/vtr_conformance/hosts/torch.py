"""PyTorch as a host: the trained model itself, fed by the runtime's frames and tokens as in training; and in float64,
which shows what rounding alone does to it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
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

    dtype = torch.float32

    def __init__(self, checkpoint: Path, bundle: Bundle) -> None:
        self._with_words = any(t.name == "word_embeddings" for t in bundle.manifest.graphs.text.outputs)
        self.model = load_own_checkpoint(checkpoint, bundle).model

    def in_float64(self) -> TorchHost:
        """The same weights in float64, for the reference's own rounding: held to the limits of fp32.

        Every product, norm, softmax and sum is float64. What stays as float32 made it are the numbers that the model
        holds: weights, the pixels' mean and scale, the sampler's time features; and inputs that a case gives in
        float32."""
        other = copy.copy(self)
        other.model = copy.deepcopy(self.model).double()
        other.backend, other.dtype = "torch float64", torch.float64
        return other

    def answer(self, case: Case) -> Arrays | str:
        if case.arrays is None:
            return "PyTorch answers the stages inside the model only"
        rerank = self.model.config.rerank
        if case.stage == "rerank" and self.dtype is torch.float64 and rerank.over_words and rerank.visual_attention:
            return "the second stage picks a frame for each word: where two are nearly alike, rounding picks, no error"
        return self.answer_in_graph(case.stage, case.arrays)

    def run(self, graph: str, feed: Arrays) -> Arrays:
        tensors = {name: self._tensor(array) for name, array in feed.items()}
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

    def _tensor(self, array: NDArray[Any]) -> Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        return tensor.to(self.dtype) if tensor.is_floating_point() else tensor

    def _rerank(self, feed: dict[str, Tensor]) -> Tensor:
        """Scores [K] of one query, given to the model as a batch of one."""
        assert self.model.rerank is not None  # the manifest, written from this checkpoint, names a second stage
        # A score that is not over words gets the sentence for its only one, and does not look at it.
        words = feed.get("word_embeddings", feed["embedding"][None])
        weights = feed.get("word_weights", torch.ones(len(words), dtype=self.dtype))
        if "word_mask" in feed:
            weights = weights * feed["word_mask"]
        query = (feed["embedding"][None], words[None], weights[None])
        scores: Tensor = self.model.rerank(*query, feed["frame_embeddings"], feed["frame_mask"])
        return scores[0]
