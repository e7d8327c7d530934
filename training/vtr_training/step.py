"""One update of the weights."""

from __future__ import annotations

import math
from contextlib import nullcontext

import torch
from torch import Tensor
from torch.amp import GradScaler
from torch.optim import AdamW

from vtr_export.model.retrieval import RetrievalModel

from .batch_features import BatchInput, Features, encode_part
from .data.batches import Batch
from .data.split import Split
from .distributed import ALONE, AgreedError, World
from .draws import OBJECTIVE, own_draws
from .embed import evaluating
from .gradcache import FeatureCache, parts_of_rows
from .objective import Objective, gap_loss, total
from .precision import SMALLEST_SCALE, autocast
from .recipe import Recipe

UNSCALED = GradScaler(enabled=False)


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
    world: World = ALONE,
    scaler: GradScaler = UNSCALED,
) -> dict[str, float]:
    """One update, the same on every rank; returns the loss, its terms as `loss_<term>`, and the gradient's norm before
    clipping, all of the whole batch; with a scaler also its `scale`.

    `step` numbers the random draws. `pretraining`: the alignment network learns the gap, everything else stands still.
    AgreedError for a loss or gradient that is not finite: the weights are then those before the step."""
    trained = [value for group in optimizer.param_groups for value in group["params"]]
    optimizer.zero_grad(set_to_none=True)
    terms = add_gradients(
        model, objective, split, batch, recipe, step=step, pretraining=pretraining, world=world, scaler=scaler
    )
    world.sum_gradients(trained)
    scaler.unscale_(optimizer)
    norm = float(torch.nn.utils.clip_grad_norm_(trained, recipe.optim.clip_norm))
    if not math.isfinite(norm) and not (scaler.is_enabled() and scaler.get_scale() > SMALLEST_SCALE):
        raise AgreedError(f"the gradient is {norm}{_described(terms)}: {MEND}")
    scaler.step(optimizer)  # left out where a scaled gradient has overflowed
    scaler.update()
    model.clamp_logit_scale()
    values = {f"loss_{name}": float(term.detach()) for name, term in terms.items()}
    if math.isfinite(norm):  # else the step was left out, and JSON has no infinity
        values["grad_norm"] = norm
    if scaler.is_enabled():
        values["scale"] = scaler.get_scale()
    return {"loss": float(total(terms).detach()), **values}


def add_gradients(
    model: RetrievalModel,
    objective: Objective,
    split: Split,
    batch: Batch,
    recipe: Recipe,
    *,
    step: int = 0,
    pretraining: bool = False,
    world: World = ALONE,
    scaler: GradScaler = UNSCALED,
) -> dict[str, Tensor]:
    """Add this rank's share of the gradient of a batch's whole loss to every weight that is trained, which has none
    yet: the ranks' sum is the gradient, times the scaler's scale. Returns the loss's terms, of the whole batch.

    AgreedError for a loss that is not finite: nothing is added then."""
    device = model.logit_scale.device
    given = BatchInput.of(model, split, batch)

    def encode(part: slice) -> Features:
        with own_draws(recipe.seed, step, 1 + part.start, device), autocast(recipe.precision, device):
            return encode_part(model, split, given, part, recipe)

    towers = (model.video, model.text)
    trains = not pretraining and any(value.requires_grad for tower in towers for value in tower.parameters())
    with evaluating(model) if pretraining else nullcontext():  # batch statistics stand still too
        own = parts_of_rows(world.share(len(batch.clips)), recipe.batches.chunk)
        cache = FeatureCache(encode, own, trains=trains)
    features = given.joined(Features(*map(world.gather, cache.features)))
    with own_draws(recipe.seed, step, OBJECTIVE, device):
        terms = gap_loss(model, features, recipe.loss.gap.loss) if pretraining else objective(model, features)
    loss = total(terms)
    if not math.isfinite(float(loss.detach())):
        raise AgreedError(f"the loss is {float(loss.detach())}{_described(terms)}: {MEND}")
    scaler.scale(loss).backward()  # type: ignore[no-untyped-call]  # to the features, and to what the losses themselves train
    world.divide_gradients([*model.parameters(), *objective.parameters()])
    cache.backward()  # and on through the towers
    return terms


MEND = "training has diverged; lower optim.lr and optim.clip_lr"


def _described(terms: dict[str, Tensor]) -> str:
    return " (" + ", ".join(f"{name} {float(term.detach()):.4g}" for name, term in terms.items()) + ")"
