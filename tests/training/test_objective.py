"""The losses of a recipe, put together: which terms there are, what they weigh and what learns from them."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from vtr_runtime.parts_of_speech import HantaTagger
from vtr_training.batch_features import encode_batch
from vtr_training.data.batches import Batch
from vtr_training.data.split import load_split
from vtr_training.embed import make_tokenizer
from vtr_training.freeze import parts_of, set_training
from vtr_training.loop import build_model
from vtr_training.objective import Objective, gap_loss, total
from vtr_training.recipe import Recipe

RERANK = {"kind": "token-wise"}


@pytest.fixture(scope="module")
def make(settings, demo, tmp_path_factory):
    """(model, objective, features of one batch) of a recipe with other settings."""
    cache = tmp_path_factory.mktemp("cache")

    def made(*, model=None, loss=None, freeze=()):
        changed = {
            **settings,
            "model": {**settings["model"], **(model or {})},
            "loss": loss or {},
            "optim": {**settings["optim"], "freeze": freeze},
            "validation": {**settings["validation"], "top_k": 3 if (model or {}).get("rerank") else None},
        }
        recipe = Recipe.model_validate(changed)
        torch.manual_seed(0)
        built = build_model(recipe.model)
        set_training(built, recipe.optim.freeze)
        split = load_split(
            demo, "train", built.config.frames, make_tokenizer(built.config), cache=cache, tagger=HantaTagger()
        )
        batch = Batch(np.arange(8), np.zeros(8, np.int64))
        return built, Objective(recipe.loss, built.config), encode_batch(built, split, batch, recipe)

    return made


@pytest.mark.parametrize(
    ("model", "loss", "terms"),
    [
        ({}, {}, {"contrastive"}),
        ({}, {"bsl": {"weight": 0.2}}, {"contrastive", "bsl"}),
        ({}, {"contrastive": "negnce"}, {"contrastive"}),
        ({}, {"tpm": {"weight": 0.5}}, {"contrastive", "tpm"}),
        ({"rerank": RERANK}, {}, {"contrastive", "rerank"}),
        (
            {"rerank": RERANK},
            {"rerank": "negnce", "bsl": {"weight": 0.1}, "tpm": {"weight": 1}},
            {"contrastive", "rerank", "bsl", "tpm"},
        ),
    ],
)
def test_a_recipe_has_the_terms_that_it_names(make, model, loss, terms):
    built, objective, features = make(model=model, loss=loss)
    found = objective(built, features)
    assert set(found) == terms
    assert all(torch.isfinite(term) and term.ndim == 0 for term in found.values())


@pytest.mark.parametrize("term", ["bsl", "tpm"])
def test_a_weight_scales_its_term_alone(make, term):
    values = []
    for weight in (0.5, 1.0):
        built, objective, features = make(loss={term: {"weight": weight}})
        if objective.tpm is not None:
            torch.manual_seed(1)
            for value in objective.parameters():
                torch.nn.init.normal_(value, std=0.1)
        values.append(objective(built, features))
    torch.testing.assert_close(values[1][term], 2 * values[0][term])
    torch.testing.assert_close(values[1]["contrastive"], values[0]["contrastive"])
    assert values[0][term] > 0


def test_hard_pairs_may_come_from_the_second_stage(make):
    """What is hard by the refined score is not what is hard by the cosine, and no gradient flows back through it."""
    loss = {"contrastive": "negnce", "negnce": {"hard_from": "rerank", "margin": 0.05}}
    built, objective, features = make(model={"rerank": RERANK}, loss=loss)
    refined = objective(built, features)["contrastive"]
    built, objective, features = make(
        model={"rerank": RERANK}, loss={"contrastive": "negnce", "negnce": {"margin": 0.05}}
    )
    assert refined != objective(built, features)["contrastive"]


@pytest.mark.parametrize("frozen", [(), ("image",), ("image", "text"), ("image", "text", "temporal", "alignment")])
def test_gradients_reach_every_part_that_is_trained_and_none_that_is_frozen(make, frozen):
    built, objective, features = make(
        model={"rerank": {"kind": "x-pool", "dropout": 0.0}},
        loss={"bsl": {"weight": 0.2}, "tpm": {"weight": 1.0}},
        freeze=frozen,
    )
    total(objective(built, features)).backward()
    for name, part in parts_of(built).items():
        gradients = [value.grad for value in part.parameters()]
        if name in frozen:
            assert all(gradient is None for gradient in gradients), name
            assert not part.training
        else:
            assert any(gradient is not None and gradient.any() for gradient in gradients), name
            assert part.training
    assert all(value.grad is not None for value in objective.parameters())


def test_the_gap_is_learned_by_the_alignment_network_alone(make):
    alignment = {"kind": "diffusion", "steps": 4, "blocks": 1, "heads": 1}
    built, _, features = make(model={"alignment": alignment}, loss={"gap": {"until": 0.5}})
    total(gap_loss(built, features, "l2")).backward()
    reached = {name for name, value in built.named_parameters() if value.grad is not None}
    assert reached
    assert all(name.startswith("text.alignment.") for name in reached)


def test_what_stands_in_padding_changes_no_loss(settings, demo, tmp_path):
    """Masked frames and the tokens after the end may hold anything: every term is the same, to the bit."""
    losses = {"contrastive": "negnce", "bsl": {"weight": 0.3}, "tpm": {"weight": 1.0}}
    changed = {**settings, "model": {**settings["model"], "rerank": RERANK}, "loss": losses}
    recipe = Recipe.model_validate(changed)
    torch.manual_seed(0)
    model = build_model(recipe.model)
    objective = Objective(recipe.loss, model.config)
    split = load_split(demo, "train", model.config.frames, make_tokenizer(model.config), cache=tmp_path)
    rng = np.random.default_rng(0)
    mask = np.arange(12) < rng.integers(1, 13, (len(split.frames.clips), 1))
    features = rng.standard_normal((*mask.shape, 32)).astype(np.float32)
    batch = Batch(np.arange(8), np.zeros(8, np.int64))

    def terms(filling):
        content = np.where(mask[..., None], features, np.float32(filling))
        shown = replace(split, frames=replace(split.frames, mask=mask), features=content)
        return objective(model, encode_batch(model, shown, batch, recipe))

    first = terms(0.0)
    assert set(first) == {"contrastive", "rerank", "bsl", "tpm"}
    for filling in (1e6, np.nan):
        for name, value in terms(filling).items():
            assert torch.equal(value, first[name]), name
