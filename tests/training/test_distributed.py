"""Two real processes below torchrun, on Gloo, against one process that has the whole batch."""

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tomli_w
import torch

from vtr_export.model.checkpoint import load_checkpoint
from vtr_runtime.errors import ConfigError
from vtr_training import loop
from vtr_training.cli import main
from vtr_training.data.batches import Batch
from vtr_training.distributed import ALONE, World, join_world, said_once
from vtr_training.loop import build_model, fit, load_splits
from vtr_training.objective import Objective
from vtr_training.recipe import Recipe
from vtr_training.step import add_gradients

ALIGNMENT = {"kind": "dits", "steps": 2, "beta_end": 0.02, "blocks": 1, "heads": 1, "noise": "sqrt-beta"}


@pytest.fixture(scope="module")
def vit(settings):
    """A small ViT with noise in the alignment head, X-Pool with dropout, and parameters of the losses' own."""
    backbone = {
        **settings["model"]["backbone"],
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 16, "patch_size": 16, "head_width": 16},
    }
    model = {
        **settings["model"],
        "backbone": backbone,
        "alignment": ALIGNMENT,
        "rerank": {"kind": "x-pool", "dropout": 0.3},
    }
    return {
        **settings,
        "model": model,
        "batches": {"size": 8},
        "loss": {"bsl": {"weight": 0.1}, "tpm": {"weight": 0.5}},
        "validation": {"every": 3, "top_k": 3},
    }


def torchrun(*words):
    """Start two processes below torchrun."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", *map(str, words)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def finish(process, *, seconds=120):
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return process.returncode, out, err


def as_ranks(work, folder, *, seconds=60):
    """Run `work(rank)` in two children of this process, as torchrun would, without its seconds of imports; their exit
    statuses, and what each wrote to stderr."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def child(rank):
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        with (folder / f"stderr{rank}").open("w") as sys.stderr:
            work(rank)

    children = [multiprocessing.get_context("fork").Process(target=child, args=(rank,)) for rank in (0, 1)]
    for one in children:
        one.start()
    for one in children:
        one.join(seconds)
        if one.exitcode is None:
            one.kill()
    return [one.exitcode for one in children], [(folder / f"stderr{rank}").read_text() for rank in (0, 1)]


@pytest.fixture
def write(tmp_path):
    def written(settings) -> Path:
        path = tmp_path / "recipe.toml"
        path.write_text(tomli_w.dumps(settings))
        return path

    return written


def test_two_ranks_have_the_gradient_of_one_with_the_whole_batch(vit, tmp_path):
    """The noise of the alignment head is drawn for each part: one process draws the same where its chunks are the
    ranks' shares."""
    recipe = Recipe.model_validate(vit)
    torch.manual_seed(0)
    model = build_model(recipe.model).double()
    objective = Objective(recipe.loss, model.config).double()
    train, _ = load_splits(recipe, model)
    named = [*model.named_parameters(), *objective.named_parameters()]
    batch = Batch(np.arange(8), np.zeros(8, np.int64))

    def gradients(chunk, world):
        given = Recipe.model_validate({**vit, "batches": {"size": 8, "chunk": chunk}})
        for _, value in named:
            value.grad = None
        terms = add_gradients(model, objective, train, batch, given, world=world)
        world.sum_gradients([value for _, value in named])
        found = {name: value.grad for name, value in named if value.grad is not None}
        return {name: term.detach() for name, term in terms.items()}, found

    def work(rank):
        with join_world("cpu") as world:
            torch.save({chunk: gradients(chunk, world) for chunk in (None, 2)}, tmp_path / f"found{rank}")

    statuses, said = as_ranks(work, tmp_path)
    assert statuses == [0, 0], said
    ranks = [torch.load(tmp_path / f"found{rank}") for rank in (0, 1)]
    for chunk, share in ((None, 4), (2, 2)):
        terms, expected = gradients(share, ALONE)
        assert {"logit_scale", "rerank.query.weight", "video.backbone.conv1.weight"} <= expected.keys()
        for found in ranks:
            torch.testing.assert_close(found[chunk][0], terms)
            assert found[chunk][1].keys() == expected.keys()
            for name, value in expected.items():
                assert (found[chunk][1][name] - value).abs().max() <= 1e-12 * max(1.0, value.abs().max()), name
        for name, value in ranks[0][chunk][1].items():
            assert torch.equal(value, ranks[1][chunk][1][name])  # to the bit, or the ranks would drift apart


@pytest.mark.long
def test_a_run_below_torchrun_is_a_run_of_one(vit, write, tmp_path):
    """Weights after six steps, and what is left in the folder."""
    alone = fit(Recipe.model_validate({**vit, "batches": {"size": 8, "chunk": 4}}), tmp_path / "alone")
    config = write(vit)
    words = ("-m", "vtr_training", "fit", config, "--no-report", "--json", "-o")
    code, out, err = finish(torchrun(*words, tmp_path / "two"))
    assert code == 0, err
    [said] = out.splitlines()  # once
    assert json.loads(said)["steps"] == 6
    assert json.loads(said)["device"].endswith("2 processes")
    files = [{path.name for path in (tmp_path / name).iterdir()} for name in ("two", "alone")]
    assert files[0] == files[1]
    ours, theirs = (torch.load(tmp_path / name / "last.pt", weights_only=True) for name in ("two", "alone"))
    for part in ("model", "objective"):
        for name, value in theirs[part].items():
            torch.testing.assert_close(ours[part][name], value, rtol=1e-4, atol=1e-5)
    assert load_checkpoint(tmp_path / "two" / "best.pt").training["step"] == alone.best_step


@pytest.mark.long
def test_an_interrupt_ends_all_ranks_after_the_same_step(vit, write, tmp_path):
    config, run = write({**vit, "steps": 4000, "validation": {"every": 5000}}), tmp_path / "run"
    process = torchrun("-m", "vtr_training", "fit", config, "--no-report", "-o", run)
    deadline = time.monotonic() + 60
    while not (run / "log.jsonl").is_file() or not (run / "log.jsonl").read_text():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)  # torchrun sends it on to both
    code, _, err = finish(process, seconds=60)
    assert code != 0
    assert err.count("stopped after step") == 1, err
    assert err.count("\ninterrupted\n") == 1
    state = torch.load(run / "last.pt", weights_only=True)
    stopped = state["progress"]["step"]
    assert 10 <= stopped < 4000
    assert f"stopped after step {stopped};" in err


@pytest.fixture
def disagree(vit, demo, write, tmp_path):
    """Run `fit` on two ranks, each in a folder of its own with its own data file, or none."""
    lines = [json.loads(line) for line in (demo / "data.jsonl").read_text().splitlines()]
    lines = [{**line, "video": str(demo / line["video"])} for line in lines]
    config = write({**vit, "data": {**vit["data"], "spec": "data.jsonl"}})

    def work(rank):
        os.chdir(tmp_path / f"rank{rank}")
        main(["fit", str(config), "--no-report", "-o", str(tmp_path / "run")])

    def run(*captions):
        for rank, caption in enumerate(captions):
            (tmp_path / f"rank{rank}").mkdir()
            if caption is not None:
                changed = [{**lines[0], "captions": [caption]}, *lines[1:]]
                (tmp_path / f"rank{rank}" / "data.jsonl").write_text("\n".join(map(json.dumps, changed)))
        found = as_ranks(work, tmp_path)
        assert not (tmp_path / "run").exists()
        return found

    return run


def test_other_data_on_one_rank_is_refused_by_name(disagree):
    statuses, said = disagree("seen by rank 0", "seen by rank 1")
    assert statuses == [1, 1], said
    assert said[0].splitlines()[-1].startswith("error: rank 0 and rank 1 do not have the same training data; give all")
    assert said[1] == ""


def test_an_error_of_one_rank_is_said_once_and_ends_all(disagree):
    statuses, said = disagree("a caption", None)
    assert statuses == [1, 1], said
    assert said[0].splitlines()[-1].startswith("error: rank 1: data.jsonl")
    assert said[1] == ""


def test_a_rank_that_is_gone_ends_the_others(vit, write, tmp_path, monkeypatch):
    """Killed in the third step, without a word."""
    original = loop.train_step

    def step(*given, **options):
        if options["step"] == 2 and options["world"].rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*given, **options)

    monkeypatch.setattr(loop, "train_step", step)
    config = write({**vit, "validation": {"every": 2}})
    statuses, said = as_ranks(
        lambda _: main(["fit", str(config), "--no-report", "-o", str(tmp_path / "run")]), tmp_path
    )
    assert statuses == [1, -signal.SIGKILL]
    assert said[0].splitlines()[-1].startswith("error: another process is gone or did not answer (")
    assert torch.load(tmp_path / "run" / "last.pt", weights_only=True)["progress"]["step"] == 2


def test_a_resumed_run_of_two_ranks_ends_bit_for_bit_like_one_that_was_never_stopped(vit, tmp_path, monkeypatch):
    """Rank 1 alone is interrupted, after the fourth step."""
    recipe = Recipe.model_validate(vit)
    original = loop.train_step

    def step(*given, **options):
        values = original(*given, **options)
        if options["step"] == 3 and options["world"].rank == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return values

    def work(stops, name, resume=False):
        def run(rank):  # noqa: ARG001
            monkeypatch.setattr(loop, "train_step", step if stops else original)
            with join_world("cpu") as world, said_once(world):
                fit(recipe, tmp_path / name, resume=resume, world=world)

        return as_ranks(run, tmp_path)

    statuses, said = work(False, "straight")
    assert statuses == [0, 0], said
    fit(Recipe.model_validate({**vit, "batches": {"size": 8, "chunk": 4}}), tmp_path / "alone")
    one, two = (torch.load(tmp_path / name / "last.pt", weights_only=True) for name in ("alone", "straight"))
    for part in ("model", "objective"):
        for name, value in one[part].items():
            torch.testing.assert_close(two[part][name], value, rtol=1e-4, atol=1e-5)
    statuses, said = work(True, "stopped")
    assert statuses == [130, 130]
    assert [one.count("stopped after step 4;") for one in said] == [1, 0]
    assert work(False, "stopped", resume=True)[0] == [0, 0]
    ours, theirs = (torch.load(tmp_path / name / "last.pt", weights_only=True) for name in ("stopped", "straight"))
    assert ours["progress"]["step"] == 6
    for part in ("model", "objective"):
        for name, value in theirs[part].items():
            assert torch.equal(ours[part][name], value), name


def test_what_ranks_do_together(tmp_path):
    """Each method against what it stands for; rank r brings r + 1."""

    def work(rank):
        with join_world("cpu") as world:
            own = torch.full((2, 3), rank + 1.0, requires_grad=True)
            whole = world.gather(own)
            (whole * torch.arange(4.0)[:, None]).sum().backward()
            weight = torch.nn.Parameter(torch.zeros(5, dtype=torch.float64))
            weight.grad = torch.full((5,), rank + 1.0, dtype=torch.float64)
            without = torch.nn.Parameter(torch.zeros(1))
            world.sum_gradients([own, without, weight])
            moments = []
            world.in_turn(lambda: moments.extend([time.monotonic(), time.sleep(0.2), time.monotonic()]))
            copied = torch.nn.Linear(1, 1)
            torch.nn.init.constant_(copied.weight, rank + 1.0)
            world.copy_from_first(copied)
            found = {
                "whole": whole.detach(),
                "own": own.grad,
                "weight": weight.grad,
                "without": without.grad,
                "any": [world.any(rank == 1), world.any(False)],
                "first": world.by_first(lambda: rank),
                "copied": copied.weight.item(),
                "moments": [moments[0], moments[2]],
            }
            torch.save(found, tmp_path / f"found{rank}")

    statuses, said = as_ranks(work, tmp_path)
    assert statuses == [0, 0], said
    found = [torch.load(tmp_path / f"found{rank}") for rank in (0, 1)]
    for one in found:
        assert one["whole"].tolist() == [[1.0] * 3] * 2 + [[2.0] * 3] * 2
        assert one["own"].tolist() == [[2.0] * 3, [4.0] * 3]  # 0 + 2 and 1 + 3: each rank's rows of arange(4), summed
        assert one["weight"].tolist() == [3.0] * 5
        assert one["without"] is None
        assert (one["any"], one["first"], one["copied"]) == ([True, False], 0, 1.0)
    assert found[0]["moments"][1] <= found[1]["moments"][0]  # rank 1 begins where rank 0 has ended


def test_more_processes_than_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for name, value in (("RANK", "1"), ("WORLD_SIZE", "2"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    with (
        pytest.raises(ConfigError, match="2 processes want a GPU and there are 1; set --nproc-per-node=1"),
        join_world("cuda"),
    ):
        pass


def test_a_batch_that_cannot_be_shared():
    world = World(torch.device("cpu"), rank=1, size=4)
    assert world.share(12) == slice(3, 6)
    with pytest.raises(ConfigError, match=r"batches\.size 10 cannot be shared by 4 processes; make it a multiple of 4"):
        world.share(10)
