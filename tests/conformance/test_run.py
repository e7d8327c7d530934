"""Conformance finds the stage that was broken on purpose, and passes what was not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from vtr_conformance.cases import Case, read_cases
from vtr_conformance.cli import main
from vtr_conformance.hosts import RuntimeHost
from vtr_conformance.hosts.base import Arrays
from vtr_conformance.results import Report, Result
from vtr_conformance.run import answer_case, run
from vtr_runtime.errors import CheckpointError, MediaError, UsageError
from vtr_runtime.manifest import Precision
from vtr_runtime.model import Model
from vtr_runtime.stages import STAGES, stage_of


def test_a_sound_bundle_meets_every_gate_in_every_stage(small_bundle: Path, small_checkpoint: Path) -> None:
    report = run(small_bundle, checkpoint=small_checkpoint)
    assert report.passed
    ran = {stage_of(r.stage).name for r in report.results if r.host == "vtr-runtime" and r.status == "pass"}
    absent = {"engine", "rerank"}  # no engine, no second stage
    assert ran == {stage.name for stage in STAGES} - absent
    assert {r.stage for r in report.results if r.host == "pytorch"} >= {"aligned", "video_embedding", "sampler_step_3"}


class Broken(RuntimeHost):
    """The runtime with one stage's answer changed."""

    def __init__(self, model: Model, stage: str, change: Callable[[Arrays], Arrays]) -> None:
        super().__init__(model)
        self._stage, self._change = stage, change

    def answer(self, case: Case) -> Arrays | str:
        found = super().answer(case)
        return self._change(found) if case.stage == self._stage and not isinstance(found, str) else found


def one_more(found: Arrays) -> Arrays:
    return {name: array + np.ones((), array.dtype) if array.dtype != bool else ~array for name, array in found.items()}


@pytest.mark.parametrize("stage", ["container", "indices", "rgb", "pixels", "ids"])
def test_an_exact_stage_that_moves_is_the_one_that_fails(small_model: Model, stage: str) -> None:
    host = Broken(small_model, stage, one_more)
    results = [answer_case(host, case) for case in read_cases(small_model.bundle)]
    assert {result.stage for result in results if result.status == "fail"} == {stage}


@pytest.mark.parametrize(
    "stage", ["text_embedding", "sampler_step_2", "aligned", "frame_embeddings", "video_embedding"]
)
@pytest.mark.parametrize("size", [2e-5, float("nan")])
def test_a_tensor_that_moves_by_more_than_its_limit_fails(small_model: Model, stage: str, size: float) -> None:
    def change(found: Arrays) -> Arrays:
        [(name, array)] = found.items()
        moved = array.copy()
        moved[0] += np.float32(size) * max(1.0, float(np.linalg.norm(array[0])))
        return {name: moved}

    host = Broken(small_model, stage, change)
    results = [answer_case(host, case) for case in read_cases(small_model.bundle)]
    failed = [result for result in results if result.status == "fail"]
    assert {result.stage for result in failed} == {stage}
    assert all(result.hint for result in failed)


def test_a_host_that_raises_fails_its_case_only(small_model: Model) -> None:
    def refuse(_: Arrays) -> Arrays:
        raise MediaError("the disk is gone")

    host = Broken(small_model, "rgb", refuse)
    results = [answer_case(host, case) for case in read_cases(small_model.bundle)]
    failed = [result for result in results if result.status == "fail"]
    assert {(result.stage, result.where) for result in failed} == {("rgb", "the disk is gone")}


def test_nothing_run_is_never_a_pass() -> None:
    assert not Report((Result("h", "b", "aligned", "c", "not_run"),)).passed
    assert "nothing was checked" in Report(()).verdict


def test_frames_and_words_alone_are_no_proof_of_a_graph() -> None:
    before = tuple(Result("h", "b", stage, "c", "pass") for stage in ("container", "pixels", "ids"))
    assert not Report(before).passed
    reference = Result("pytorch", "torch", "aligned", "c", "pass")
    assert not Report((*before, reference)).passed
    assert Report((*before, Result("h", "b", "aligned", "c", "pass"))).passed


def test_a_precision_is_proved_only_by_a_host_that_computes_in_it() -> None:
    def results(precision: Precision) -> tuple[Result, ...]:
        stages = ("aligned", "video_embedding")
        return tuple(Result("h", "b", stage, "c", "pass", precision=precision) for stage in stages)

    assert Report(results("bf16"), precision="bf16").unproved == ""
    report = Report(results("fp32"), precision="bf16")
    assert report.passed
    assert "bf16 is not proved" in report.unproved
    assert report.unproved in report.verdict
    assert "passed retrieval" in Report(results("int8"), precision="int8").unproved
    found = Result("h", "b", "retrieval", "c", "pass", precision="int8")
    assert Report((*results("int8"), found), precision="int8").unproved == ""


def test_the_verdict_names_the_earliest_stage_that_failed() -> None:
    failed = tuple(
        Result("h", "b", stage, "c", "fail") for stage in ("ranking", "corners", "sampler_step_2", "aligned")
    )
    assert Report(failed).verdict.startswith("first stage that moved: sampler_step_2")


def test_the_command_ends_with_3_and_says_where(
    small_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vtr_conformance import run as run_module

    real = run_module.read_cases

    def shifted(bundle: object) -> list[Case]:
        return [
            Case(c.id, c.stage, one_more(c.expected), c.media, c.texts, c.arrays) if c.stage == "ids" else c
            for c in real(bundle)  # type: ignore[arg-type]
        ]

    monkeypatch.setattr(run_module, "read_cases", shifted)
    done = CliRunner().invoke(main, ["run", str(small_bundle), "--report", str(tmp_path / "report")])
    assert done.exit_code == 3
    assert "FAILED ids" in done.stdout
    assert "first stage that moved: ids" in done.stdout
    lines = [json.loads(line) for line in (tmp_path / "report" / "conformance.jsonl").read_text().splitlines()]
    assert [line["status"] for line in lines if line.get("stage") == "ids"] == ["fail"]
    assert lines[-1]["verdict"].startswith("first stage that moved: ids")
    assert set(lines[0]) >= {
        "schema",
        "host",
        "backend",
        "stage",
        "case",
        "status",
        "measured",
        "limit",
        "where",
        "hint",
    }


def test_the_checkpoint_must_be_the_bundles_own(small_bundle: Path, small_checkpoint: Path, tmp_path: Path) -> None:
    import torch

    from vtr_export.model.checkpoint import load_checkpoint, save_checkpoint

    model = load_checkpoint(small_checkpoint).model
    with torch.no_grad():
        model.logit_scale.add_(0.1)
    save_checkpoint(tmp_path / "other.pt", model)
    with pytest.raises(CheckpointError, match="is not the checkpoint that"):
        run(small_bundle, checkpoint=tmp_path / "other.pt")


@pytest.mark.parametrize("batch", ["8", "1:2", "0:1:2", "1:b:3"])
def test_a_profile_that_is_none_is_refused(small_bundle: Path, batch: str) -> None:
    done = CliRunner().invoke(main, ["run", str(small_bundle), "--batch", batch])
    assert done.exit_code == 2
    assert "MIN:OPT:MAX" in done.stderr


def test_data_without_a_checkpoint_is_refused(small_bundle: Path) -> None:
    with pytest.raises(UsageError, match="add --ckpt"):
        run(small_bundle, data="data.jsonl")


def test_a_whole_split_ranks_alike(
    small_bundle: Path, small_checkpoint: Path, good_clips: list[Path], tmp_path: Path
) -> None:
    lines = [
        {"video": str(clip), "captions": [f"this is {clip.name}", f"a clip called {clip.name}"], "split": "test"}
        for clip in good_clips
    ]
    (tmp_path / "empty.mp4").write_bytes(b"")
    lines.append({"video": "empty.mp4", "captions": ["nothing"], "split": "test"})
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    report = run(small_bundle, checkpoint=small_checkpoint, data=str(tmp_path))
    assert report.passed
    [found] = report.retrieval
    assert (found.videos, found.texts, found.unreadable) == (3, 6, 1)
    for way in (found.t2v, found.v2t):
        assert way.figures == way.reference
        assert (way.flips, way.flips_outside, way.top10_changed, way.worst) == (0, 0, 0, None)
        assert way.identical == way.queries
    # The data are told by name: the report travels in the bundle.
    name = f"{tmp_path.name}:test"
    ways = [("pass", f"{name}, {way}") for way in ("text to video", "video to text")]
    assert [(r.status, r.case) for r in report.results if r.stage == "retrieval"] == ways
    [sentence] = report.left_out
    assert "empty.mp4" in sentence
    assert str(tmp_path) not in sentence
    assert report.verdict.endswith("; left out: 1 of the split's clips")


def test_a_benchmark_is_named_and_its_absent_clips_are_counted(
    small_bundle: Path, small_checkpoint: Path, good_clips: list[Path], tmp_path: Path
) -> None:
    rows = [f"ret{i},msr{i},{clip.stem},this is {clip.name}\n" for i, clip in enumerate(good_clips)]
    text = "key,vid_key,video_id,sentence\n" + "".join(rows) + "ret9,msr9,video9,nobody has it\n"
    (tmp_path / "MSRVTT_JSFUSION_test.csv").write_text(text)
    spec = f"msrvtt-1ka:{tmp_path}?videos={good_clips[0].parent}&subset=yes"
    report = run(small_bundle, checkpoint=small_checkpoint, data=spec)
    [found] = report.retrieval
    assert (report.passed, found.videos, found.texts, found.unreadable) == (True, 3, 3, 1)
    cases = [result.case for result in report.results if result.stage == "retrieval"]
    assert cases == [f"msrvtt-1ka?subset=yes:test, {way}" for way in ("text to video", "video to text")]


def test_golden_vectors_of_another_schema_are_refused(small_model: Model, tmp_path: Path) -> None:
    from vtr_runtime.bundle import Bundle
    from vtr_runtime.errors import BundleError

    (tmp_path / "golden").mkdir()
    (tmp_path / "golden" / "golden.json").write_text('{"schema": 99}')
    with pytest.raises(BundleError, match="schema 99"):
        read_cases(Bundle(tmp_path, small_model.manifest))
