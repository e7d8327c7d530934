"""Whole runs of a few steps on generated clips."""

import json
import math
import os
import shutil
import signal

import numpy as np
import pytest
import torch

from vtr_export.model.checkpoint import load_checkpoint
from vtr_runtime.errors import CheckpointError, ConfigError, DataError, OutputExistsError, UsageError, VtrError
from vtr_training import loop
from vtr_training.batch_features import encode_distinct_frames, encode_frames
from vtr_training.loop import build_model, fit
from vtr_training.recipe import Recipe


def log_lines(run):
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


@pytest.fixture(scope="module")
def straight(settings, tmp_path_factory):
    """A run that was never stopped."""
    run = tmp_path_factory.mktemp("runs") / "straight"
    return run, fit(Recipe.model_validate(settings), run)


def interrupt_after(monkeypatch, steps):
    original, done = loop.train_step, []

    def step(*given, **options):
        result = original(*given, **options)
        done.append(result)
        if len(done) == steps:
            os.kill(os.getpid(), signal.SIGINT)
        return result

    monkeypatch.setattr(loop, "train_step", step)


def test_what_a_run_leaves(straight, recipe):
    run, result = straight
    assert {path.name for path in run.iterdir()} == {
        "best.pt", "last.pt", "log.jsonl", "recipe.json", "summary.json", "tb",
    }  # fmt: skip
    assert any((run / "tb").iterdir())
    assert Recipe.model_validate_json((run / "recipe.json").read_text()) == recipe
    validations = [line for line in log_lines(run) if line["kind"] == "val"]
    assert [line["step"] for line in validations] == [2, 4, 6]
    best = max(validations, key=lambda line: line["value"])
    assert (result.best_step, result.best_value) == (best["step"], best["value"])
    loaded = load_checkpoint(run / "best.pt")
    assert loaded.config == build_model(recipe.model).config
    assert loaded.training["step"] == best["step"]
    assert Recipe.model_validate(loaded.training["recipe"]) == recipe
    assert (result.steps, result.skipped) == (6, 0)


@pytest.mark.parametrize("stopped_after", [1, 3, 4])
def test_a_resumed_run_ends_bit_for_bit_like_one_that_was_never_stopped(
    straight, recipe, tmp_path, monkeypatch, stopped_after
):
    run = tmp_path / "run"
    before = signal.getsignal(signal.SIGINT)  # a shell's background job has it ignored
    with monkeypatch.context() as patch:
        interrupt_after(patch, stopped_after)
        with pytest.raises(KeyboardInterrupt):
            fit(recipe, run)
    state = torch.load(run / "last.pt", weights_only=True)
    assert state["progress"]["step"] == stopped_after
    assert signal.getsignal(signal.SIGINT) is before

    torch.manual_seed(999)  # what the new process happens to have must not matter
    resumed = fit(recipe, run, resume=True)
    assert (resumed.best_step, resumed.best_value) == (straight[1].best_step, straight[1].best_value)
    assert log_lines(run) == log_lines(straight[0])
    ours, theirs = (torch.load(path / "last.pt", weights_only=True) for path in (run, straight[0]))
    for part in ("model", "random"):
        assert_same(ours[part], theirs[part])
    assert_same(ours["optimizer"]["state"], theirs["optimizer"]["state"])
    assert load_checkpoint(run / "best.pt").weights_sha256 == load_checkpoint(straight[0] / "best.pt").weights_sha256


def test_a_resume_is_exact_with_noise_dropout_and_parameters_of_the_losses(settings, tmp_path, monkeypatch):
    alignment = {**settings["model"]["alignment"], "noise": "sqrt-beta"}
    model = {**settings["model"], "alignment": alignment, "rerank": {"kind": "x-pool"}}
    validation = {**settings["validation"], "top_k": 3}
    recipe = Recipe.model_validate(
        {**settings, "model": model, "loss": {"tpm": {"weight": 1.0}}, "validation": validation}
    )
    fit(recipe, tmp_path / "straight")
    with monkeypatch.context() as patch:
        interrupt_after(patch, 3)
        with pytest.raises(KeyboardInterrupt):
            fit(recipe, tmp_path / "run")
    fit(recipe, tmp_path / "run", resume=True)
    ours, theirs = (torch.load(tmp_path / name / "last.pt", weights_only=True) for name in ("run", "straight"))
    assert ours["objective"]
    for part in ("model", "objective", "random"):
        assert_same(ours[part], theirs[part])
    assert log_lines(tmp_path / "run") == log_lines(tmp_path / "straight")
    assert any("second_rsum" in line for line in log_lines(tmp_path / "run"))


def assert_same(one, other):
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for pair in zip(one, other, strict=True):
            assert_same(*pair)
    else:
        assert one == other


def test_lines_beyond_the_resumed_step_are_dropped(straight, recipe, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(straight[0], run)
    with (run / "log.jsonl").open("a") as file:
        file.write('{"step": 7, "kind": "train"}\n{"step": 8, "ki')
    fit(recipe, run, resume=True)
    assert log_lines(run) == log_lines(straight[0])


def test_a_run_folder_that_exists_is_refused(straight, recipe):
    before = (straight[0] / "last.pt").read_bytes()
    with pytest.raises(OutputExistsError, match="exists already"):
        fit(recipe, straight[0])
    assert (straight[0] / "last.pt").read_bytes() == before


def test_resuming_another_recipe_names_what_differs(straight, settings):
    other = Recipe.model_validate({**settings, "steps": 7, "optim": {**settings["optim"], "lr": 0.5}})
    with pytest.raises(ConfigError, match=r"optim\.lr, steps"):
        fit(other, straight[0], resume=True)


def test_resuming_nothing(recipe, tmp_path):
    with pytest.raises(UsageError, match=r"holds no last\.pt"):
        fit(recipe, tmp_path / "absent", resume=True)


@pytest.mark.parametrize("damage", [b"", b"not a checkpoint", None])
def test_a_damaged_last_pt_is_refused(straight, recipe, tmp_path, damage):
    run = tmp_path / "run"
    shutil.copytree(straight[0], run)
    whole = (run / "last.pt").read_bytes()
    (run / "last.pt").write_bytes(whole[: len(whole) // 2] if damage is None else damage)
    with pytest.raises(CheckpointError, match="cannot be resumed from"):
        fit(recipe, run, resume=True)


def test_an_unreadable_clip_is_skipped_and_counted(settings, demo, tmp_path, capsys):
    lines = [json.loads(line) for line in (demo / "data.jsonl").read_text().splitlines()]
    for line in lines:
        line["video"] = str(demo / line["video"])
    (tmp_path / "broken.mp4").write_bytes(b"x" * 100)
    lines.append({"video": "broken.mp4", "captions": ["a broken clip"], "split": "train"})
    data = tmp_path / "data.jsonl"
    data.write_text("\n".join(map(json.dumps, lines)))
    changed = {**settings, "steps": 2, "data": {"spec": str(data)}}
    result = fit(Recipe.model_validate(changed), tmp_path / "run")
    assert result.skipped == 1
    assert capsys.readouterr().err.count("broken.mp4") == 1
    assert all(
        math.isfinite(value) for line in log_lines(tmp_path / "run") for value in line.values() if value != "val"
    )
    assert (tmp_path / ".frames").is_dir()


def test_divergence_is_an_error_not_nan(settings, tmp_path):
    wild = {**settings, "optim": {"lr": 1e30, "clip_lr": 1e30, "warmup": 0.0}}
    message = r"step [2-6]: the (loss|gradient) is .* diverged; lower optim\.lr .*; its batch: .*\.mp4, .* and 5 more"
    with pytest.raises(VtrError, match=message):
        fit(Recipe.model_validate(wild), tmp_path / "run")


def test_a_full_gpu_is_one_sentence(recipe, tmp_path, monkeypatch):
    def step(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(loop, "train_step", step)
    with pytest.raises(VtrError, match=r"step 1: the GPU's memory is full; set batches\.chunk lower"):
        fit(recipe, tmp_path / "run")


def test_the_last_good_checkpoints_outlive_a_divergence(settings, tmp_path, monkeypatch):
    original, run = loop.train_step, tmp_path / "run"
    calls = []

    def step(model, *given, **options):
        calls.append(1)
        if len(calls) == 5:
            with torch.no_grad():
                model.logit_scale.fill_(math.nan)
        return original(model, *given, **options)

    monkeypatch.setattr(loop, "train_step", step)
    with pytest.raises(VtrError, match="step 5: the loss is nan"):
        fit(Recipe.model_validate(settings), run)
    assert load_checkpoint(run / "best.pt").training["step"] in (2, 4)
    state = torch.load(run / "last.pt", weights_only=True)
    assert state["progress"]["step"] == 4
    assert all(value.isfinite().all() for value in state["model"].values())


@pytest.mark.parametrize(
    ("same", "message"), [("captions", "all captions of the training"), ("video", "all videos of the training")]
)
def test_data_without_negatives_is_refused(settings, demo, tmp_path, same, message):
    lines = [json.loads(line) for line in (demo / "data.jsonl").read_text().splitlines()]
    first = lines[0]
    for line in lines:
        line["video"] = str(demo / line["video"])
        if line["split"] == "train":
            line[same] = first[same][:1] if same == "captions" else first[same]
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(DataError, match=message):
        fit(Recipe.model_validate({**settings, "data": {"spec": str(tmp_path)}}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_batch_of_one_video_teaches_nothing_and_breaks_nothing(settings, demo, tmp_path):
    """Most clips are the same part of the same file: some batches hold no negative at all."""
    lines = [json.loads(line) for line in (demo / "data.jsonl").read_text().splitlines()]
    train = [line for line in lines if line["split"] == "train"]
    for line in lines:
        line["video"] = str(demo / line["video"])
    for line in train[2:]:
        line["video"] = train[0]["video"]
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, lines)))
    changed = {**settings, "data": {"spec": str(tmp_path)}, "batches": {"size": 2}}
    fit(Recipe.model_validate(changed), tmp_path / "run")
    assert all(
        math.isfinite(value) for line in log_lines(tmp_path / "run") for value in line.values() if value != "val"
    )
    losses = torch.load(tmp_path / "run" / "last.pt", weights_only=True)["model"].values()
    assert all(value.isfinite().all() for value in losses)


def test_a_run_sums_itself_up(straight):
    run, result = straight
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["best_step"], summary["steps"], summary["skipped"]) == (result.best_step, 6, 0)
    assert summary["parameters"]["total"] == sum(v.numel() for v in load_checkpoint(run / "best.pt").model.parameters())
    assert summary["peak_memory_bytes"] > 50e6
    assert summary["device"].startswith("cpu")
    assert summary["validation"]["t2v"]["queries"] > 0


def test_every_term_of_the_loss_is_logged(settings, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "LOG_EVERY", 1)
    fit(Recipe.model_validate({**settings, "steps": 2}), tmp_path / "run")
    lines = [line for line in log_lines(tmp_path / "run") if line["kind"] == "train"]
    assert len(lines) == 2
    for line in lines:
        assert line["loss"] == pytest.approx(line["loss_contrastive"] + line["loss_bsl"])


def test_a_group_metric_needs_groups(settings, demo, tmp_path):
    lines = [json.loads(line) for line in (demo / "data.jsonl").read_text().splitlines()]
    for line in lines:
        line["video"] = str(demo / line["video"])
        if line["split"] == "val":
            line.pop("group")
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(ConfigError, match="needs groups"):
        fit(Recipe.model_validate({**settings, "data": {"spec": str(tmp_path)}}), tmp_path / "run")
    assert not (tmp_path / "run").exists()  # nothing begun


def test_resuming_on_other_data_is_refused(settings, demo, tmp_path):
    data = tmp_path / "data.jsonl"
    lines = [json.loads(line) for line in (demo / "data.jsonl").read_text().splitlines()]
    lines = [{**line, "video": str(demo / line["video"])} for line in lines]
    data.write_text("\n".join(map(json.dumps, lines)))
    recipe = Recipe.model_validate({**settings, "steps": 2, "data": {**settings["data"], "spec": str(data)}})
    fit(recipe, tmp_path / "run")
    lines[0]["captions"] = ["something else"]
    data.write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(ConfigError, match=r"is not what .*run was begun with"):
        fit(recipe, tmp_path / "run", resume=True)


def test_an_absent_device_is_refused(settings, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="torch sees none"):
        fit(Recipe.model_validate({**settings, "device": "cuda"}), tmp_path / "run")


def test_distinct_frames_change_nothing_but_the_work(recipe):
    model = build_model(recipe.model).eval()
    frames = torch.from_numpy(np.random.default_rng(0).integers(256, size=(3, 12, 32, 32, 3), dtype=np.uint8))
    frames[1], frames[2, 5:] = frames[0].flip(0), 0
    device = torch.device("cpu")
    seen = []
    original = model.video.encode_frames
    model.video.encode_frames = lambda given: seen.append(given.shape) or original(given)  # type: ignore[method-assign]
    with torch.inference_mode():
        found, expected = encode_distinct_frames(model, frames, device), encode_frames(model, frames, device)
    assert seen[0][:2] == (1, 18)  # 12 + 5 + one black
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
