"""The suite finds deliberately wrong hosts and exports, each at the stage where the mistake is made."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from vtr_conformance.cli import main
from vtr_conformance.hosts.runtime import open_runtime
from vtr_conformance.mutants import MUTANTS, ExportMutant, HostMutant, command
from vtr_conformance.mutants.check import MutantCheck
from vtr_export.model import (
    AlignmentConfig,
    BackboneConfig,
    ModelConfig,
    RetrievalModel,
    TemporalConfig,
    redraw_zero_parameters,
    save_checkpoint,
)
from vtr_export.model.config import RerankConfig
from vtr_runtime.errors import GateError
from vtr_runtime.stages import BY_NAME as BY_STAGE
from vtr_runtime.stages import stage_of

BACKBONE: dict[str, Any] = {
    "embed_dim": 64,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "patch_size": 16, "layers": 1, "width": 64, "head_width": 32},
    "text_cfg": {"width": 64, "heads": 2, "layers": 1},
}
MSTDT: dict[str, Any] = {
    "kind": "mstdt",
    "scales": (2, 3),
    "alpha": 0.3,
    "heads": 2,
    "mlp_ratio": 2.0,
    "init": "random",
    "position_init": "normal",
    "position_std": 0.3,  # as large as trained ones, so that their order is seen
}
DITS: dict[str, Any] = {"kind": "dits", "steps": 3, "blocks": 1, "heads": 2}
BY_NAME = {mutant.name: mutant for mutant in MUTANTS}

# Every mistake that must be found whatever else is, and where; the other exports are among the long tests.
NAMED = {
    "causal-mask-lost": "text_embedding",
    "bgr": "rgb",
    "bilinear": "pixels",
    "no-antialias": "pixels",
    "frames-off-by-one": "indices",
    "last-of-segment": "indices",
    "text-not-cleaned": "ids",
    "text-gelu-swapped": "text_embedding",
    "end-cut-off": "ids",
    "mean-and-std-swapped": "frame_embeddings",
    "frame-mask-ignored": "frame_embeddings",
    "layer-norm-in-fp16": "text_embedding",
    "one-step-less": "sampler_step_3",
    "one-chi-wrong": "sampler_step_1",
    "steps-reversed": "sampler_step_3",
    "batch-leak": "sampler_step_3",
    "rotation-ignored": "rgb",
    "full-range-as-limited": "rgb",
    "difference-across-subsets": "video_embedding",
    "temporal-alpha-swapped": "video_embedding",
    "alpha-dropped": "rgb",
    "weight-transposed": "text_embedding",
    "rerank-mask-ignored": "rerank",
}
NOT_FOR_THIS_MODEL = {"pooled-at-highest-id", "key-and-value-swapped", "temperature-twice"}


def checkpoint(folder: Path, **parts: Any) -> Path:
    config = ModelConfig.from_backbone(BackboneConfig.from_open_clip(parts.pop("backbone")), frames=6, **parts)
    torch.manual_seed(0)
    model = RetrievalModel(config).eval()
    redraw_zero_parameters(model, 0)
    save_checkpoint(folder / "best.pt", model)
    return folder / "best.pt"


@pytest.fixture(scope="module")
def check(tmp_path_factory: pytest.TempPathFactory) -> MutantCheck:
    folder = tmp_path_factory.mktemp("mutants")
    path = checkpoint(
        folder,
        backbone=BACKBONE,
        temporal=TemporalConfig(**MSTDT),
        alignment=AlignmentConfig(**DITS),
        rerank=RerankConfig(kind="token-wise"),
    )
    (folder / "exports").mkdir()
    return MutantCheck(path, folder / "exports")


def test_the_unmutated_export_passes_in_every_stage(check: MutantCheck) -> None:
    assert check.report.passed
    assert {result.status for result in check.report.results} == {"pass"}
    in_fp16 = check.check_fp16()
    assert {result.precision for result in in_fp16.results} == {"fp16"}
    assert {"text_embedding", "sampler_step_1", "rerank", "corners"} <= {
        result.stage for result in in_fp16.results if result.status == "pass"
    }


def parameters() -> list[Any]:
    slow = [m.name for m in MUTANTS if isinstance(m, ExportMutant) and m.name not in NAMED]
    return [pytest.param(m.name, marks=pytest.mark.long if m.name in slow else ()) for m in MUTANTS]


@pytest.mark.parametrize("name", parameters())
def test_a_mutant_is_caught_at_its_stage(check: MutantCheck, name: str) -> None:
    outcome = check.check(BY_NAME[name])
    if name in NOT_FOR_THIS_MODEL:
        assert (outcome.status, outcome.found) == ("not applicable", "")
        assert outcome.why
        return
    assert outcome.status == "caught", outcome
    assert outcome.found == NAMED.get(name, outcome.found)
    assert outcome.measured is not None
    assert outcome.limit is not None
    assert not outcome.measured <= outcome.limit
    # What a bundle without debug outputs shows first is never before the stage itself.
    stages = list(BY_STAGE)
    assert stages.index(stage_of(outcome.plain).name) >= stages.index(stage_of(outcome.found).name)


def test_every_mutant_has_a_name_of_its_own_and_the_named_ones_are_there() -> None:
    assert len(BY_NAME) == len(MUTANTS) >= 30
    assert NAMED.keys() <= BY_NAME.keys()


def test_a_mistake_ends_with_its_host(check: MutantCheck) -> None:
    for name in ("bgr", "default-scaler", "short-clip-repeated", "end-cut-off"):
        assert check.check(BY_NAME[name]).status == "caught"
    assert check.suite.run(open_runtime(check.sound.bundle, "onnx-cpu"), whole=True).passed


def test_the_sums_in_fp16_are_what_overflows(check: MutantCheck) -> None:
    """With every island in place the same activations pass, and the mutant is missed."""
    mutant = BY_NAME["layer-norm-in-fp16"]
    assert isinstance(mutant, ExportMutant)
    outcome = check.check(replace(mutant, fp16_without=("op:NoSuchOperator",)))
    assert (outcome.status, outcome.why) == ("missed", "every gate was met")


def run_command(check: MutantCheck, monkeypatch: pytest.MonkeyPatch, *arguments: object) -> Any:
    monkeypatch.setattr(command, "MutantCheck", lambda *_: check)
    return CliRunner().invoke(main, ["mutants", "--ckpt", "best.pt", *map(str, arguments)])


def test_the_command_writes_table_page_and_lines(
    check: MutantCheck, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    only = ("--only", "bgr", "--only", "pooled-at-highest-id", "--only", "rows-not-restored")
    done = run_command(check, monkeypatch, *only, "--report", tmp_path / "report", "--markdown", tmp_path / "page.md")
    assert done.exit_code == 0, done.output
    assert "3 mutants: 2 caught, 0 wrong stage, 0 missed, 1 not applicable" in done.stdout
    lines = [json.loads(line) for line in (tmp_path / "report" / "mutants.jsonl").read_text().splitlines()]
    assert [(line["name"], line["status"]) for line in lines] == [
        ("bgr", "caught"),
        ("pooled-at-highest-id", "not applicable"),
        ("rows-not-restored", "caught"),
    ]
    # Of the two, the text tower's own vector is there with debug outputs alone.
    assert (lines[2]["found"], lines[2]["plain"]) == ("text_embedding", "aligned")
    page = (tmp_path / "page.md").read_text()
    assert "every gate met" in page
    row = next(line for line in page.splitlines() if line.startswith("| rows-not-restored "))
    assert "| text_embedding | text_embedding |" in row
    assert row.endswith("| aligned | caught |")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"patches": ()}, "NOT CAUGHT bgr: every gate was met"),
        ({"expected": ("pixels",)}, "NOT CAUGHT bgr: rgb was blamed: rgb/"),
    ],
)
def test_a_mutant_that_gets_away_ends_with_3(
    check: MutantCheck, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], words: str
) -> None:
    mutant = BY_NAME["bgr"]
    assert isinstance(mutant, HostMutant)
    monkeypatch.setattr(command, "MUTANTS", (replace(mutant, **change),))
    done = run_command(check, monkeypatch)
    assert done.exit_code == 3
    assert words in done.stdout


def test_an_unknown_mutant_is_refused(check: MutantCheck, monkeypatch: pytest.MonkeyPatch) -> None:
    done = run_command(check, monkeypatch, "--only", "brg")
    assert done.exit_code == 2
    assert "there is no mutant 'brg'; choose from: bgr" in done.stderr


def test_an_export_that_is_not_sound_shows_nothing(check: MutantCheck) -> None:
    from vtr_conformance.mutants import check as module

    report = check.suite.run(module.MutantHost(check._host.model, BY_NAME["bgr"]))  # type: ignore[arg-type]
    with pytest.raises(GateError, match=r"the unmutated export does not pass.*rgb moved by"):
        module._must_pass(report, "the unmutated export")


OTHER_MODEL = (
    "text-gelu-swapped",
    "text-gelu-rounded",
    "image-gelu-swapped",
    "one-chi-wrong",
    "batch-leak",
    "temporal-alpha-swapped",
    "rerank-mask-ignored",
    "key-and-value-swapped",
    "temperature-twice",
)


@pytest.mark.long
def test_mutants_of_a_model_with_the_other_parts(tmp_path: Path) -> None:
    """Exact GELU, a sampler behind the video tower, a learned alpha, x-pool."""
    path = checkpoint(
        tmp_path,
        backbone={**BACKBONE, "quick_gelu": False},
        temporal=TemporalConfig(**MSTDT, alpha_learned=True),
        alignment=AlignmentConfig(**DITS, gap="t-v"),
        rerank=RerankConfig(kind="x-pool"),
    )
    (tmp_path / "exports").mkdir()
    check = MutantCheck(path, tmp_path / "exports")
    for name in OTHER_MODEL:
        outcome = check.check(BY_NAME[name])
        if name == "temporal-alpha-swapped":  # the sampler's walk behind the head shows it before the clip's embedding
            assert stage_of(outcome.found).name == "sampler_step", outcome
        else:
            assert outcome.status == "caught", outcome
