"""Blocks that are frozen, recomputed and compiled: the gradient stays what it was."""

import numpy as np
import pytest
import torch

from vtr_runtime.errors import ConfigError
from vtr_training import layers
from vtr_training.data.batches import Batch
from vtr_training.layers import checkpoint_blocks, compile_towers, freeze_layers
from vtr_training.loop import build_model, fit, load_splits, prepare_model
from vtr_training.objective import Objective
from vtr_training.recipe import Recipe
from vtr_training.step import add_gradients

BATCH = Batch(np.arange(8), np.zeros(8, np.int64))


@pytest.fixture(scope="module")
def vit(settings):
    backbone = {
        **settings["model"]["backbone"],
        "vision_cfg": {"image_size": 32, "layers": 3, "width": 16, "patch_size": 8, "head_width": 16},
        "text_cfg": {"width": 16, "heads": 1, "layers": 3, "context_length": 32},
    }
    model = {**settings["model"], "backbone": backbone}
    return {**settings, "model": model, "batches": {"size": 8}, "validation": {"every": 2}}


@pytest.fixture(scope="module")
def gradients(vit):
    """The gradients of one batch, with other settings, and the bytes that autograd kept."""

    def found(prepare=prepare_model, **changed):
        recipe = Recipe.model_validate({**vit, **changed})
        torch.manual_seed(0)
        model = build_model(recipe.model).double()
        prepare(model, recipe)
        train, _ = load_splits(recipe, model)
        kept = []

        def keep(value):
            kept.append(0 if isinstance(value, torch.nn.Parameter) else value.nbytes)
            return value

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
            add_gradients(model, Objective(recipe.loss, model.config).double(), train, BATCH, recipe)
        return {name: value.grad for name, value in model.named_parameters()}, sum(kept)

    return found


@pytest.fixture(scope="module")
def plain(gradients):
    return gradients()


def assert_same(found, expected, limit=1e-12):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert (found[name] - value).abs().max() <= limit * max(1.0, value.abs().max()), name


@pytest.mark.parametrize("chunk", [None, 3])
def test_checkpointing_gives_the_same_gradient_and_keeps_less(gradients, plain, chunk):
    found, kept = gradients(checkpointing=True, batches={"size": 8, "chunk": chunk})
    assert_same(found, plain[0])
    assert kept < plain[1] / 2


def test_compiled_towers_give_the_same_gradient(gradients, plain, monkeypatch):
    monkeypatch.setattr(layers, "BACKEND", "aot_eager")  # traced as for inductor, without its compiler

    def prepare(model, recipe):
        prepare_model(model, recipe)
        assert isinstance(model.video.backbone.forward, layers.CompiledForward)

    assert_same(gradients(prepare, compile=True)[0], plain[0])
    assert_same(gradients(compile=True, checkpointing=True)[0], plain[0])


@pytest.mark.long
def test_a_compiled_run_goes_through_all_its_shapes(vit, tmp_path, monkeypatch):
    """Batches, frames that are alike, validation and its last batch: one graph each, none run without."""
    monkeypatch.setattr(layers, "BACKEND", "aot_eager")
    batches = {"size": 8, "distinct_frames": True, "groups_from": 0.5}
    recipe = Recipe.model_validate({**vit, "compile": True, "batches": batches, "validation": {"every": 4, "batch": 7}})
    compiled = fit(recipe, tmp_path / "compiled")
    plain = fit(recipe.model_copy(update={"compile": False}), tmp_path / "plain")
    assert compiled.best_value == pytest.approx(plain.best_value, abs=5)
    ours, theirs = (
        torch.load(tmp_path / name / "last.pt", weights_only=True)["model"] for name in ("compiled", "plain")
    )
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-3, atol=1e-4)


@pytest.mark.long
def test_compiled_by_inductor(gradients, plain):
    assert_same(gradients(compile=True)[0], plain[0], limit=1e-10)


def test_what_cannot_be_compiled_is_an_error(vit, monkeypatch):
    monkeypatch.setattr(layers, "BACKEND", "aot_eager")
    model = build_model(Recipe.model_validate(vit).model)
    model.video.backbone.project = lambda tokens: tokens * float(input())  # type: ignore[method-assign]
    compile_towers(model)
    with pytest.raises(ConfigError, match=r"torch\.compile failed on the image tower \(.*\); set compile=false"):
        model.video.encode_frames(torch.zeros(1, 1, 32, 32, 3, dtype=torch.uint8))


def test_frozen_layers_take_no_gradient_and_the_others_the_same(gradients, plain):
    found, kept = gradients(optim={"freeze_layers": 2})
    frozen = {name for name, value in found.items() if value is None}
    towers = {f"{tower}.backbone.transformer.resblocks.{i}." for tower in ("video", "text") for i in (0, 1)}
    stem = {"conv1.weight", "class_embedding", "positional_embedding", "ln_pre.weight", "ln_pre.bias"}
    embeddings = {f"video.backbone.{name}" for name in stem}
    embeddings |= {"text.backbone.token_embedding.weight", "text.backbone.positional_embedding"}
    assert embeddings <= frozen
    assert {name for name in frozen if not name.startswith(tuple(towers))} == embeddings
    assert_same(
        {name: found[name] for name in found if name not in frozen},
        {name: value for name, value in plain[0].items() if name not in frozen},
    )
    assert kept < plain[1]  # nothing is kept for the blocks before the first that is trained


def test_frozen_layers_of_a_resnet_keep_their_statistics(recipe):
    model = build_model(recipe.model)
    model.train()
    freeze_layers(model, 1)
    image = model.video.backbone
    kept = [image.conv1, image.bn1, image.bn3, *image.layer1.modules()]
    assert not any(module.training for module in kept if not list(module.children()) or module in image.layer1)
    assert image.layer2[0].bn1.training
    assert not image.layer1[0].conv1.weight.requires_grad
    assert image.layer2[0].conv1.weight.requires_grad
    with pytest.raises(ConfigError, match=r"freeze_layers is 2 and the text tower has 1 blocks; set it to 1"):
        freeze_layers(model, 2)


def test_embeddings_alone(recipe):
    model = build_model(recipe.model)
    freeze_layers(model, 0)
    assert not model.text.backbone.token_embedding.weight.requires_grad
    assert model.text.backbone.transformer.resblocks[0].attn.in_proj_weight.requires_grad


def test_what_has_no_effect_or_would_be_wrong_is_refused(settings, tmp_path):
    frozen = {**settings["optim"], "freeze": ("image", "text")}
    for changed in ({"optim": {**frozen, "freeze_layers": 1}}, {"optim": frozen, "checkpointing": True}):
        with pytest.raises(ValueError, match="has no effect without a tower that is trained"):
            Recipe.model_validate({**settings, **changed})
    with pytest.raises(ConfigError, match=r"checkpointing is set, and the image tower .* taken once; set"):
        fit(Recipe.model_validate({**settings, "checkpointing": True}), tmp_path / "run")


def test_checkpointed_blocks_keep_their_names(recipe):
    model = build_model(recipe.model)
    names = set(model.state_dict())
    checkpoint_blocks(model)
    compile_towers(model)
    assert set(model.state_dict()) == names
