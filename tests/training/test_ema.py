"""Averaged weights, early stop, the interval of last.pt, and a disk that is full."""

import json
import resource

import pytest
import torch

from vtr_export.model.checkpoint import load_checkpoint
from vtr_runtime.errors import StorageError
from vtr_training import loop
from vtr_training.ema import AveragedWeights
from vtr_training.loop import build_model, fit
from vtr_training.recipe import Recipe
from vtr_training.run_state import Progress, save_state


def test_the_average_is_a_loop_over_the_steps(recipe):
    torch.manual_seed(0)
    model = build_model(recipe.model).train()
    averaged = AveragedWeights(model, 0.75)
    expected = None
    for step in range(4):
        with torch.no_grad():
            for value in model.parameters():
                value.add_(torch.randn_like(value))
            model.video.backbone.bn1.running_mean.fill_(step)
        averaged.update(model)
        now = {name: value.detach().clone() for name, value in model.named_parameters()}
        expected = now if expected is None else {k: 0.75 * expected[k] + 0.25 * now[k] for k in now}
    found = dict(averaged.model.named_parameters())
    for name, value in expected.items():
        torch.testing.assert_close(found[name].detach(), value)
    assert averaged.model.video.backbone.bn1.running_mean[0] == 3


def test_the_averaged_weights_are_validated_kept_and_resumed(settings, tmp_path, monkeypatch):
    changed = {**settings, "steps": 4, "optim": {**settings["optim"], "ema": 0.5}, "validation": {"every": 4}}
    recipe = Recipe.model_validate(changed)
    weights, original = [], loop.train_step

    def step(model, *given, **options):
        values = original(model, *given, **options)
        weights.append({name: value.detach().clone() for name, value in model.named_parameters()})
        return values

    judged, validate = [], loop.validate
    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", step)
        patch.setattr(loop, "validate", lambda model, *given: judged.append(model) or validate(model, *given))
        fit(recipe, tmp_path / "straight")
    expected = weights[0]
    for now in weights[1:]:
        expected = {name: 0.5 * expected[name] + 0.5 * now[name] for name in now}
    kept = dict(load_checkpoint(tmp_path / "straight" / "best.pt").model.named_parameters())
    for name, value in expected.items():
        torch.testing.assert_close(kept[name].detach(), value)
        torch.testing.assert_close(dict(judged[0].named_parameters())[name].detach(), value)

    def interrupted(model, *given, **options):
        values = original(model, *given, **options)
        if options["step"] == 1:
            loop.signal.raise_signal(loop.signal.SIGTERM)
        return values

    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fit(recipe, tmp_path / "run")
    fit(recipe, tmp_path / "run", resume=True)
    resumed = load_checkpoint(tmp_path / "run" / "best.pt")
    assert resumed.weights_sha256 == load_checkpoint(tmp_path / "straight" / "best.pt").weights_sha256


def values_of(monkeypatch, values):
    """Let the validations find these values, one after the other."""
    left = iter(values)

    def validate(*given):
        state, run = given[3], given[5]
        value = next(left)
        if value > state.best:
            (run / "best.pt").write_text(str(state.step))
            return value, state.step
        return state.best, state.best_step

    monkeypatch.setattr(loop, "validate", validate)
    monkeypatch.setattr(loop, "write_summary", lambda *_: None)


def test_a_run_ends_when_nothing_better_comes(settings, tmp_path, monkeypatch):
    """Validations of steps 2, 4, ...: better at 2 and 6, then twice not; equal is not better."""
    recipe = Recipe.model_validate({**settings, "steps": 20, "validation": {"every": 2, "patience": 2}})
    values_of(monkeypatch, [1.0, 0.5, 2.0, 2.0, 1.0, 9.0])
    result = fit(recipe, tmp_path / "run")
    assert (result.steps, result.best_step, result.best_value) == (10, 6, 2.0)
    again = fit(recipe, tmp_path / "run", resume=True)  # it has ended; nothing is added
    assert (again.steps, again.best_step) == (10, 6)


def test_a_killed_run_loses_at_most_one_interval(settings, tmp_path, monkeypatch):
    recipe = Recipe.model_validate({**settings, "checkpoint_every": 2, "validation": {"every": 6}})
    original = loop.train_step

    def step(*given, **options):
        if options["step"] == 5:
            raise MemoryError  # no chance to save
        return original(*given, **options)

    monkeypatch.setattr(loop, "train_step", step)
    with pytest.raises(MemoryError):
        fit(recipe, tmp_path / "run")
    assert torch.load(tmp_path / "run" / "last.pt", weights_only=True)["progress"]["step"] == 4
    monkeypatch.undo()
    fit(recipe, tmp_path / "run", resume=True)
    fit(recipe, tmp_path / "straight")
    lines = [
        [{key: value for key, value in json.loads(line).items() if key != "seconds"} for line in path.open()]
        for path in (tmp_path / "run" / "log.jsonl", tmp_path / "straight" / "log.jsonl")
    ]
    assert lines[0] == lines[1]


def test_a_full_disk_keeps_the_old_checkpoint(recipe, tmp_path):
    """The kernel refuses to write beyond a size, as a full disk does."""
    model = build_model(recipe.model)
    path = tmp_path / "last.pt"
    save_state(path, {"model": model}, Progress(step=1))
    before, limit = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limit[1]))
    try:
        with pytest.raises(StorageError, match=r"no room to write .*last\.pt"):
            save_state(path, {"model": model}, Progress(step=2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
