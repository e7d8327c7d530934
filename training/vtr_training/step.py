"""One update of the weights."""

from __future__ import annotations

import math
from contextlib import nullcontext

import torch
from torch import Tensor
from torch.optim import AdamW

from vtr_export.model.retrieval import RetrievalModel
from vtr_runtime.errors import VtrError

from .batch_features import BatchInput, Features, encode_part
from .data.batches import Batch
from .data.split import Split
from .draws import OBJECTIVE, own_draws
from .embed import evaluating
from .gradcache import FeatureCache, parts_of_rows
from .objective import Objective, gap_loss, total
from .recipe import Recipe


def train_step(
    model: RetrievalModel,
    objective: Objective,
    optimizer: AdamW,
    split: Split,
    batch: Batch,
    recipe: Recipe,
    *,
    step: int = 0,
    pretraining: bool = False,
) -> dict[str, float]:
    """One update; returns the loss, its terms as `loss_<term>`, and the gradient's norm before clipping.

    `step` numbers the random draws. `pretraining`: the alignment network learns the gap, everything else stands still.
    VtrError for a loss or gradient that is not finite: the weights are then those before the step."""
    optimizer.zero_grad(set_to_none=True)
    terms = add_gradients(model, objective, split, batch, recipe, step=step, pretraining=pretraining)
    trained = [value for group in optimizer.param_groups for value in group["params"]]
    norm = float(torch.nn.utils.clip_grad_norm_(trained, recipe.optim.clip_norm))
    if not math.isfinite(norm):
        raise VtrError(f"the gradient is {norm}{_described(terms)}: {MEND}")
    optimizer.step()
    model.clamp_logit_scale()
    values = {f"loss_{name}": float(term.detach()) for name, term in terms.items()}
    return {"loss": float(total(terms).detach()), **values, "grad_norm": norm}


def add_gradients(
    model: RetrievalModel,
    objective: Objective,
    split: Split,
    batch: Batch,
    recipe: Recipe,
    *,
    step: int = 0,
    pretraining: bool = False,
) -> dict[str, Tensor]:
    """Add the gradient of a batch's whole loss to every weight that is trained; returns the loss's terms.

    VtrError for a loss that is not finite: nothing is added then."""
    device = model.logit_scale.device
    given = BatchInput.of(model, split, batch)

    def encode(part: slice) -> Features:
        with own_draws(recipe.seed, step, 1 + part.start, device):
            return encode_part(model, split, given, part, recipe)

    towers = (model.video, model.text)
    trains = not pretraining and any(value.requires_grad for tower in towers for value in tower.parameters())
    with evaluating(model) if pretraining else nullcontext():  # batch statistics stand still too
        cache = FeatureCache(encode, parts_of_rows(slice(0, len(batch.clips)), recipe.batches.chunk), trains=trains)
    features = given.joined(cache.features)
    with own_draws(recipe.seed, step, OBJECTIVE, device):
        terms = gap_loss(model, features, recipe.loss.gap.loss) if pretraining else objective(model, features)
    loss = total(terms)
    if not math.isfinite(float(loss.detach())):
        raise VtrError(f"the loss is {float(loss.detach())}{_described(terms)}: {MEND}")
    loss.backward()  # type: ignore[no-untyped-call]  # to the features, and to what the losses themselves train
    cache.backward()  # and on through the towers
    return terms


MEND = "training has diverged; lower optim.lr and optim.clip_lr"


def _described(terms: dict[str, Tensor]) -> str:
    return " (" + ", ".join(f"{name} {float(term.detach()):.4g}" for name, term in terms.items()) + ")"
