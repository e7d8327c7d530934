"""Towers in half precision, everything that is kept in float32."""

import math

import numpy as np
import pytest
import torch

from vtr_runtime.errors import VtrError
from vtr_training.data.batches import Batch
from vtr_training.distributed import AgreedError
from vtr_training.loop import build_model, fit, load_splits
from vtr_training.objective import Objective
from vtr_training.optim import build_optimizer
from vtr_training.recipe import Recipe
from vtr_training.step import add_gradients, train_step

BATCH = Batch(np.arange(8), np.zeros(8, np.int64))


@pytest.fixture(scope="module")
def made(settings):
    """(recipe, model, objective, optimizer, split, scaler) in a precision."""

    def make(precision):
        recipe = Recipe.model_validate({**settings, "precision": precision, "loss": {"tpm": {"weight": 1.0}}})
        torch.manual_seed(0)
        model = build_model(recipe.model)
        objective = Objective(recipe.loss, model.config)
        train, _ = load_splits(recipe, model)
        return recipe, model, objective, build_optimizer(model, objective, recipe.optim), train

    return make


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_products_are_halved_and_nothing_else(made, precision, dtype):
    """The gradient keeps the direction of the one in float32, to what 8 or 11 bits allow."""
    gradients = {}
    for kind in ("fp32", precision):
        recipe, model, objective, _, split = made(kind)
        seen = []
        model.text.backbone.transformer.resblocks[0].mlp.c_fc.register_forward_hook(
            lambda *given, seen=seen: seen.append(given[2].dtype)
        )
        model.video.backbone.conv1.register_forward_hook(lambda *given, seen=seen: seen.append(given[2].dtype))
        terms = add_gradients(model, objective, split, BATCH, recipe)
        assert set(seen) == {dtype if kind != "fp32" else torch.float32}
        assert all(term.dtype == torch.float32 for term in terms.values())
        for value in (*model.parameters(), *objective.parameters()):
            assert value.dtype == torch.float32
            assert value.grad is None or value.grad.dtype == torch.float32
        gradients[kind] = torch.cat([value.grad.flatten() for value in model.parameters() if value.grad is not None])
    cosine = torch.nn.functional.cosine_similarity(gradients["fp32"], gradients[precision], dim=0)
    assert 0.9 < cosine < 1 - 1e-7
    assert gradients[precision].isfinite().all()


def test_an_overflow_leaves_a_step_out_and_lowers_the_scale(made):
    recipe, model, objective, optimizer, split = made("fp16")
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    before = {name: value.clone() for name, value in model.named_parameters()}
    values = train_step(model, objective, optimizer, split, BATCH, recipe, scaler=scaler)
    assert values["scale"] == 2.0**39
    assert "grad_norm" not in values
    assert all(torch.equal(value, before[name]) for name, value in model.named_parameters())
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)
    values = train_step(model, objective, optimizer, split, BATCH, recipe, scaler=scaler)
    assert values["grad_norm"] > 0
    assert any(not torch.equal(value, before[name]) for name, value in model.named_parameters())


def test_a_gradient_that_overflows_unscaled_has_diverged(made):
    recipe, model, objective, optimizer, split = made("fp16")
    scaler = torch.amp.GradScaler("cpu", init_scale=1.0)
    model.text.backbone.positional_embedding.register_hook(lambda gradient: gradient * math.inf)
    with pytest.raises(AgreedError, match=r"the gradient is .*diverged"):
        train_step(model, objective, optimizer, split, BATCH, recipe, scaler=scaler)


def test_the_scale_is_part_of_the_gradient_until_the_update(made):
    recipe, model, objective, _, split = made("fp32")
    add_gradients(model, objective, split, BATCH, recipe)
    plain = {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}
    model.zero_grad()
    add_gradients(model, objective, split, BATCH, recipe, scaler=torch.amp.GradScaler("cpu", init_scale=8.0))
    for name, value in plain.items():
        limit = 1e-5 * float(value.abs().max())
        torch.testing.assert_close(dict(model.named_parameters())[name].grad, 8 * value, rtol=1e-4, atol=8 * limit)


def test_a_run_in_half_precision_keeps_its_scale(settings, tmp_path):
    recipe = Recipe.model_validate({**settings, "steps": 2, "precision": "fp16"})
    fit(recipe, tmp_path / "run")
    state = torch.load(tmp_path / "run" / "last.pt", weights_only=True)
    assert state["scaler"]["scale"] > 1
    assert all(value.dtype != torch.float16 for value in state["model"].values())


def test_an_unknown_precision(settings):
    with pytest.raises(ValueError, match="precision"):
        Recipe.model_validate({**settings, "precision": "fp8"})
    assert issubclass(AgreedError, VtrError)
