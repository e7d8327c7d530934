"""Parts of a model by name: which of them training leaves as they are, and which a checkpoint gives."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import nn

from vtr_export.model.backbone import describe_mismatch
from vtr_export.model.retrieval import RetrievalModel
from vtr_runtime.errors import ConfigError

from .recipe import Part, changed_keys


def parts_of(model: RetrievalModel) -> dict[Part, nn.Module]:
    """The parts that a model has. The logit scale belongs to none: it is part of the loss and always trained."""
    alignment = model.text.alignment if model.text.alignment is not None else model.video.alignment
    found: dict[Part, nn.Module | None] = {
        "image": model.video.backbone,
        "text": model.text.backbone,
        "temporal": model.video.temporal,
        "alignment": alignment,
        "rerank": model.rerank,
    }
    return {name: part for name, part in found.items() if part is not None}


def set_training(model: RetrievalModel, frozen: Collection[Part]) -> None:
    """Training mode for all but the frozen parts, which take no gradient and keep their batch statistics."""
    model.train()
    for name, part in parts_of(model).items():
        if name in frozen:
            part.eval().requires_grad_(False)


@torch.no_grad()
def take_over(model: RetrievalModel, source: RetrievalModel) -> list[str]:
    """Copy into `model` every part of `source` that has the same configuration, and the logit scale; returns the parts.

    Raises ConfigError where the backbones differ, or a head's sizes, which also depend on the number of frames."""
    ours, theirs = model.config, source.config
    other = sorted(changed_keys(ours.backbone.model_dump(), theirs.backbone.model_dump()))
    if other:
        raise ConfigError(
            f"model.start_from holds another backbone ({theirs.backbone.name}) than the recipe ({ours.backbone.name}): "
            f"they differ in {', '.join(other)}; give the same model.backbone"
        )
    same = {"image": True, "text": True, "temporal": ours.temporal == theirs.temporal}
    same |= {"alignment": ours.alignment == theirs.alignment, "rerank": ours.rerank == theirs.rerank}
    given, taken = parts_of(source), []
    for name, part in parts_of(model).items():
        if same[name] and name in given:
            weights = given[name].state_dict()
            if mismatch := describe_mismatch(part.state_dict(), weights, f"{name}."):
                raise ConfigError(f"model.start_from holds another head: {mismatch}; give the same model.frames")
            part.load_state_dict(weights)
            taken.append(str(name))
    model.logit_scale.copy_(source.logit_scale)
    if not same["temporal"]:
        model.initialise_temporal_head()  # from the text tower's weights, now that it has them
    return taken


def count_parameters(model: RetrievalModel, objective: nn.Module) -> dict[str, object]:
    """Numbers of parameters: of the model, of what is trained (the objective's own included), and of each part."""
    by_part = {str(name): _count(part) for name, part in parts_of(model).items()} | {"objective": _count(objective)}
    trained = sum(
        value.numel() for module in (model, objective) for value in module.parameters() if value.requires_grad
    )
    return {"total": _count(model), "trained": trained, "by_part": by_part}


def _count(module: nn.Module) -> int:
    return sum(value.numel() for value in module.parameters())
