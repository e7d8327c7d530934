"""PyTorch as a host: the trained model itself, fed by the runtime's frames and tokens as in training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from vtr_export.model.checkpoint import load_checkpoint
from vtr_export.model.dits import without_evaluation_noise
from vtr_runtime.bundle import Bundle
from vtr_runtime.errors import CheckpointError

from ..cases import Case
from .base import Arrays, scores


class TorchHost:
    """Answers the stages inside the model, without noise as in the graphs; the stages before are the runtime's own."""

    name = "pytorch"
    backend = "torch"

    def __init__(self, checkpoint: Path, bundle: Bundle) -> None:
        loaded = load_checkpoint(checkpoint)
        if loaded.weights_sha256 != bundle.manifest.weights_sha256:
            raise CheckpointError(
                f"{checkpoint} is not the checkpoint that {bundle.folder} was exported from; give that one"
            )
        self.model = loaded.model.eval()
        without_evaluation_noise(self.model)

    def answer(self, case: Case) -> Arrays | str:
        arrays = case.arrays
        if arrays is None:
            return "PyTorch answers the stages inside the model only"
        if case.stage == "ranking":
            return {"scores": scores(self._text(arrays)["aligned"], self._video(arrays)["video_embedding"])}
        outputs = self._video(arrays) if "frames" in arrays else self._text(arrays)
        name = "embedding" if case.stage in ("aligned", "video_embedding") else case.stage
        return {name: outputs[case.stage]}

    def _video(self, arrays: Arrays) -> Arrays:
        frames, mask = torch.from_numpy(arrays["frames"]), torch.from_numpy(arrays["frame_mask"])
        with torch.inference_mode():
            return _numpy(self.model.video.stages(frames, mask))

    def _text(self, arrays: Arrays) -> Arrays:
        with torch.inference_mode():
            return _numpy(self.model.text.stages(torch.from_numpy(arrays["input_ids"])))


def _numpy(stages: dict[str, Any]) -> Arrays:
    return {name: tensor.numpy() for name, tensor in stages.items()}
