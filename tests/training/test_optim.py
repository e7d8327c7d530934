import math

import pytest
import torch

from vtr_training.loop import build_model
from vtr_training.optim import build_optimizer, rate_factor, set_rate


def test_the_rate_rises_linearly_then_falls_as_a_cosine():
    found = [rate_factor(step, 100, 0.1) for step in range(100)]
    rising = [(step + 1) / 11 for step in range(10)]
    falling = [(1 + math.cos(math.pi * (step - 10) / 90)) / 2 for step in range(10, 100)]
    assert found == pytest.approx(rising + falling)
    assert max(found) == 1


def test_without_warm_up_the_first_step_has_the_peak_rate():
    assert rate_factor(0, 10, 0.0) == 1
    assert rate_factor(0, 1, 0.0) == 1


def test_groups(recipe):
    model = build_model(recipe.model)
    settings = recipe.optim.model_copy(update={"lr": 0.5, "clip_lr": 0.25, "weight_decay": 0.125})
    objective = torch.nn.Linear(2, 3)
    model.video.backbone.requires_grad_(False)
    optimizer = build_optimizer(model, objective, settings)
    found = {
        id(tensor): (group["peak_lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for tensor in group["params"]
    }
    names = {name: value for name, value in model.named_parameters() if not name.startswith("video.backbone.")}
    names |= {f"objective.{name}": value for name, value in objective.named_parameters()}
    assert found.keys() == {id(value) for value in names.values()}  # each once, and nothing that is frozen
    assert {name: found[id(names[name])] for name in EXPECTED} == EXPECTED
    set_rate(optimizer, 0.5)
    assert {group["lr"] for group in optimizer.param_groups} == {0.25, 0.125}


EXPECTED = {
    "logit_scale": (0.25, 0.0),
    "text.backbone.token_embedding.weight": (0.25, 0.125),
    "text.backbone.positional_embedding": (0.25, 0.0),
    "text.backbone.ln_final.bias": (0.25, 0.0),
    "video.temporal.short_positions": (0.5, 0.0),
    "video.temporal.long.positional_embedding": (0.5, 0.0),
    "video.temporal.long.transformer.resblocks.0.mlp.c_fc.weight": (0.5, 0.125),
    "video.temporal.long.transformer.resblocks.0.mlp.c_fc.bias": (0.5, 0.0),
    "text.alignment.network.latent.weight": (0.5, 0.125),
    "objective.weight": (0.5, 0.125),
    "objective.bias": (0.5, 0.0),
}


def test_the_rates_reach_the_weights(recipe):
    """One step of AdamW from zero moments moves each weight by its rate (and decay), whatever the gradient's size."""
    model = build_model(recipe.model)
    settings = recipe.optim.model_copy(update={"lr": 1e-2, "clip_lr": 1e-3, "weight_decay": 0.0, "eps": 1e-12})
    optimizer = build_optimizer(model, torch.nn.Identity(), settings)
    set_rate(optimizer, 1.0)
    before = {name: tensor.detach().clone() for name, tensor in model.named_parameters()}
    for tensor in model.parameters():
        tensor.grad = torch.ones_like(tensor)
    optimizer.step()
    for name, tensor in model.named_parameters():
        rate = 1e-3 if name.startswith(("video.backbone", "text.backbone", "logit_scale")) else 1e-2
        torch.testing.assert_close(before[name] - tensor.detach(), torch.full_like(tensor, rate), rtol=1e-3, atol=1e-6)
