"""Named tensors -> the family of checkpoints they belong to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from torch import Tensor

from vtr_runtime.errors import CheckpointError

from .hugging_face import rename_hugging_face
from .state_dict import SCALARS

Family = Literal["CLIP4Clip", "OpenAI", "open_clip", "Hugging Face"]
_SHOWN = 5


@dataclass(frozen=True)
class Found:
    """What a file holds."""

    path: Path
    family: Family
    towers: dict[str, Tensor]  # by the names of open_clip.CLIP
    head: dict[str, Tensor] = field(default_factory=dict)  # what CLIP4Clip has beside the towers, by its own names

    @property
    def prefix(self) -> str:
        """What stands before the towers' names in the file."""
        return "clip." if self.family == "CLIP4Clip" else ""

    @property
    def quick_gelu(self) -> bool | None:
        """The activation that the family always has; None where the weights alone do not say."""
        # Both are written with QuickGELU alone: openai/CLIP clip/model.py, ArrowLuo/CLIP4Clip modules/module_clip.py.
        return True if self.family in ("CLIP4Clip", "OpenAI") else None


def recognise(weights: Mapping[str, Tensor], path: Path) -> Found:
    """Raises CheckpointError for tensors of no known family, saying what was found."""
    if any(name.startswith("clip.visual.") for name in weights):
        towers = {name.removeprefix("clip."): value for name, value in weights.items() if name.startswith("clip.")}
        if "visual.conv2.weight" in towers and "visual.layer1.0.conv1.weight" not in towers:
            raise CheckpointError(
                f"{path} is a CLIP4Clip checkpoint with linear_patch '3d' (clip.visual.conv2), whose frames are not "
                "embedded one by one; export one trained with linear_patch '2d'"
            )
        head = {name: value for name, value in weights.items() if not name.startswith("clip.")}
        return Found(path, "CLIP4Clip", towers, head)
    if any(name.startswith(("vision_model.", "text_model.")) for name in weights):
        try:
            return Found(path, "Hugging Face", rename_hugging_face(weights))
        except CheckpointError as error:
            raise CheckpointError(
                f"{path} names its weights as Hugging Face does, but {error}; copy it again"
            ) from error
    if any(name.startswith("visual.") for name in weights):
        towers = {name.removeprefix("text."): value for name, value in weights.items() if name not in SCALARS}
        return Found(path, "OpenAI" if weights.keys() >= SCALARS else "open_clip", towers)
    names = sorted(weights)
    shown = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
    raise CheckpointError(
        f"{path} is of no known family of checkpoints: it holds {len(names)} tensors, named {shown}; give one of "
        "vtr-train, CLIP4Clip, open_clip, OpenAI or Hugging Face's CLIPModel"
    )
