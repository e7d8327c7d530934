"""Parts that keep their weights, and parts that a checkpoint gives."""

import pytest
import torch

from vtr_export.model.checkpoint import load_checkpoint
from vtr_runtime.errors import ConfigError
from vtr_training.freeze import count_parameters, parts_of, set_training, take_over
from vtr_training.loop import build_model, fit
from vtr_training.recipe import ModelSettings, Recipe


@pytest.fixture
def build(settings):
    def built(seed=0, **model):
        torch.manual_seed(seed)
        return build_model(ModelSettings.model_validate({**settings["model"], **model}))

    return built


def test_a_frozen_part_ends_as_it_began(settings, tmp_path):
    frozen = ("image", "text", "temporal")
    recipe = Recipe.model_validate({**settings, "steps": 2, "optim": {**settings["optim"], "freeze": frozen}})
    fit(recipe, tmp_path / "run")
    trained = load_checkpoint(tmp_path / "run" / "best.pt").model
    torch.manual_seed(recipe.seed)
    before = build_model(recipe.model)
    for name, part in parts_of(trained).items():
        same = all(torch.equal(a, b) for a, b in zip(part.buffers(), parts_of(before)[name].buffers(), strict=True))
        moved = [
            not torch.equal(a, b) for a, b in zip(part.parameters(), parts_of(before)[name].parameters(), strict=True)
        ]
        assert same
        assert any(moved) == (name not in frozen), name


def test_frozen_parts_stay_in_evaluation_mode_and_take_no_gradient(build):
    model = build()
    set_training(model, ("image",))
    assert not any(module.training for module in model.video.backbone.modules())
    assert model.text.training
    assert model.video.temporal.training
    assert not any(value.requires_grad for value in model.video.backbone.parameters())
    assert all(value.requires_grad for value in model.text.parameters())


def test_parts_of_the_same_configuration_are_taken_over(build):
    source, model = build(seed=1), build(seed=2, temporal={"kind": "mean"})
    taken = take_over(model, source)
    assert taken == ["image", "text", "alignment"]
    for name in taken:
        ours, theirs = parts_of(model)[name].state_dict(), parts_of(source)[name].state_dict()
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert torch.equal(model.logit_scale, source.logit_scale)


def test_a_head_of_another_configuration_begins_anew(build):
    source, model = build(seed=1), build(seed=2, alignment={"kind": "mlp", "blocks": 1})
    assert take_over(model, source) == ["image", "text", "temporal"]


def test_another_backbone_is_refused(build, settings):
    other = {**settings["model"]["backbone"], "embed_dim": 64}
    with pytest.raises(ConfigError, match=r"holds another backbone .*: they differ in embed_dim; give"):
        take_over(build(), build(backbone=other))


def test_a_head_for_other_numbers_of_frames_is_refused(build, settings):
    temporal = {**settings["model"]["temporal"], "positions": "absolute"}
    with pytest.raises(ConfigError, match=r"temporal\.short_positions has shape .* give the same model\.frames"):
        take_over(build(temporal=temporal), build(temporal=temporal, frames=8))


def test_start_from_reads_a_checkpoint(settings, tmp_path):
    recipe = Recipe.model_validate({**settings, "steps": 2})
    fit(recipe, tmp_path / "first")
    best = tmp_path / "first" / "best.pt"
    model = build_model(ModelSettings.model_validate({**settings["model"], "start_from": str(best)}))
    source = load_checkpoint(best).model.state_dict()
    assert all(torch.equal(value, source[name]) for name, value in model.state_dict().items())


def test_parameters_are_counted_by_part(build):
    model = build()
    objective = torch.nn.Linear(3, 4)
    set_training(model, ("text",))
    counts = count_parameters(model, objective)
    total = sum(value.numel() for value in model.parameters())
    text = sum(value.numel() for value in model.text.backbone.parameters())
    assert counts["total"] == total
    assert counts["trained"] == total - text + 16
    assert counts["by_part"]["objective"] == 16
    assert sum(counts["by_part"].values()) == total - 1 + 16  # the logit scale belongs to no part
