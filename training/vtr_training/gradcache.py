"""Exact gradients of a large batch in the memory of a small one (GradCache: Gao et al. 2021, arXiv 2101.06983).

A contrastive loss needs the features of all pairs at once, but the towers do not. All parts of the batch are encoded
without a graph; the loss on their features gives the features' gradients; then each part is encoded again, with a
graph, and these gradients go on through it. The price is a second forward pass through the towers. With one part there
is nothing to gain, and its graph is kept from the first pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from vtr_export.model.retrieval import RetrievalModel
from vtr_runtime.errors import ConfigError

from .batch_features import Features
from .recipe import Recipe


class FeatureCache:
    """The features of consecutive parts of a batch, and the way back from their gradients.

    `encode` gives a part's features and draws the same random numbers each time that it is asked for the same part.
    `features` are leaves: a loss's backward pass ends there, and `backward` goes on."""

    def __init__(self, encode: Callable[[slice], Features], parts: Sequence[slice], *, trains: bool) -> None:
        """`trains`: whether any tower takes a gradient at all."""
        self._encode, self._parts, self._trains = encode, parts, trains
        with torch.set_grad_enabled(trains and len(parts) == 1):
            made = [encode(part) for part in parts]
        self._kept = made[0] if len(parts) == 1 else None
        joined = (torch.cat(values).detach() for values in zip(*made, strict=True))
        self.features = Features(*(value.requires_grad_(trains) for value in joined))

    def backward(self) -> None:
        """Add the gradients of the towers' weights, part by part."""
        if not self._trains:
            return
        start = 0
        for part in self._parts:
            made = self._kept if self._kept is not None else self._encode(part)
            end = start + len(made.video)
            pairs = [
                (value, leaf.grad[start:end])
                for value, leaf in zip(made, self.features, strict=True)
                if leaf.grad is not None and value.requires_grad
            ]
            if pairs:
                values, gradients = zip(*pairs, strict=True)
                torch.autograd.backward(values, gradients)
            start = end


def parts_of_rows(rows: slice, chunk: int | None) -> list[slice]:
    """Consecutive parts of `chunk` rows, the last of what is left; none: all in one."""
    step = chunk or rows.stop - rows.start
    return [slice(start, min(start + step, rows.stop)) for start in range(rows.start, rows.stop, step)]


def refuse_batch_statistics(model: RetrievalModel, recipe: Recipe, *, ranks: int = 1) -> None:
    """ConfigError where a setting would change what batch normalisation sees: each part of a batch would be normalised
    by its own mean and variance, and no gradient would be that of the whole batch; what is computed again would be
    counted again in the running statistics."""
    learns = any(isinstance(module, torch.nn.BatchNorm2d) and module.training for module in model.modules())
    chunk = recipe.batches.chunk is not None and recipe.batches.chunk < recipe.batches.size
    settings = {
        "batches.chunk is set": chunk,
        "checkpointing is set": recipe.checkpointing,
        f"{ranks} processes share a batch": ranks > 1,
    }
    for what, there in settings.items():
        if learns and there:
            raise ConfigError(
                f"{what}, and the image tower {model.config.backbone.name} learns from the statistics of its whole "
                'batch, taken once; set optim.freeze=["image"], or take a ViT'
            )
