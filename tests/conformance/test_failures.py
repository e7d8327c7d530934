"""What a failed stage says: a class of its own, how much, where in the reader's words, and the usual cause."""

from __future__ import annotations

import numpy as np
import pytest

from vtr_conformance.comparators import Comparison
from vtr_conformance.failures import BY_STAGE, failure_of
from vtr_conformance.places import describe
from vtr_conformance.results import Report, Result
from vtr_runtime.stages import BY_NAME, STAGES


def failed(stage: str, **more: object) -> Result:
    return Result("vtr-runtime", "onnx-cpu", stage, "texts", "fail", hint=BY_NAME[stage].hint, **more)  # type: ignore[arg-type]


def test_every_stage_has_one_class_of_its_own() -> None:
    assert list(BY_STAGE) == [stage.name for stage in STAGES]
    assert len({*BY_STAGE.values()}) == len(STAGES)


@pytest.mark.parametrize("stage", list(BY_STAGE))
def test_a_failure_is_raised_as_its_stages_class_and_ends_with_3(stage: str) -> None:
    error = failure_of(failed(stage, measured=0.5, limit=1e-5, unit="max |difference|", where="embedding at row 3"))
    assert type(error) is BY_STAGE[stage]
    assert error.exit_status == 3
    for part in (stage, "0.5 max |difference|", "limit 1e-05", "embedding at row 3", BY_NAME[stage].hint):
        assert part in str(error)


def test_a_step_of_the_sampler_is_its_stages_failure() -> None:
    result = Result("vtr-runtime", "onnx-cpu", "sampler_step_3", "texts", "fail", hint="x")
    assert type(failure_of(result)) is BY_STAGE["sampler_step"]


def test_the_first_stage_in_the_datas_order_is_the_one_at_fault() -> None:
    report = Report((failed("ranking"), failed("video_embedding"), failed("pixels"), failed("aligned")))
    assert [result.stage for result in report.failed] == ["pixels", "aligned", "video_embedding", "ranking"]
    assert report.verdict.startswith("first stage that moved: pixels")


def test_a_place_is_told_in_the_readers_words() -> None:
    labels = {"clip": ["bear.webm", "talk.mp4"], "caption": ["a" * 100]}
    there = describe(Comparison(False, 1.0, (1, 3, 9), output="x"), ("clip", "frame", "number"), labels)
    assert there == "x at clip 1 ('talk.mp4'), frame 3, number 9"
    beyond = describe(Comparison(False, 1.0, (7,), "not finite", "x"), ("clip",), labels)
    assert beyond == "x: not finite at clip 7"
    long = describe(Comparison(False, 1.0, (0,), output="x"), ("caption",), labels)
    assert len(long) < 90
    assert long.endswith("…')")
    assert describe(Comparison(True, 0.0, output="x"), ("clip",), labels) == ""


def test_names_of_the_golden_rows_reach_the_report(small_model: object) -> None:
    from vtr_conformance.cases import read_cases

    cases = {case.stage: case for case in read_cases(small_model.bundle)}  # type: ignore[attr-defined]
    for stage, axis, output in (("video_embedding", "clip", "embedding"), ("aligned", "caption", "embedding")):
        case = cases[stage]
        assert len(case.labels[axis]) == len(case.expected[output])
    assert np.ndim(cases["ids"].expected["ids"]) == 2
