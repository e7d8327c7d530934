"""The limits by precision, against the figures that the project promises."""

from __future__ import annotations

import numpy as np
import pytest

from vtr_conformance.comparators import compare
from vtr_runtime.manifest import PRECISIONS, Precision
from vtr_runtime.stages import STAGES, stage_of

UNIT_STAGES = ("aligned", "frame_embeddings", "video_embedding", "corners")


def test_every_stage_has_a_gate_at_every_precision() -> None:
    for stage in STAGES:
        assert set(stage.gates) == set(PRECISIONS), stage.name


@pytest.mark.parametrize("stage", UNIT_STAGES)
@pytest.mark.parametrize(("precision", "cosine"), [("fp16", 0.9999), ("bf16", 0.999)])
def test_reduced_embeddings_are_held_to_their_cosine(stage: str, precision: Precision, cosine: float) -> None:
    gate = stage_of(stage).gate(precision)
    for nearer, passes in ((0.99, True), (1.01, False)):
        angle = np.arccos(1 - (1 - cosine) * nearer)
        turned = {"embedding": np.array([[np.cos(angle), np.sin(angle)]])}
        found = compare(gate.comparator, {"embedding": np.array([[1.0, 0.0]])}, turned, gate.limit)
        assert found.passed is passes


@pytest.mark.parametrize("stage", UNIT_STAGES)
def test_fp32_is_held_to_its_largest_difference(stage: str) -> None:
    gate = stage_of(stage).gate("fp32")
    assert (gate.comparator, gate.limit) == ("max_abs", 1e-5)


@pytest.mark.parametrize(("precision", "cosine"), [("fp16", 0.9999), ("bf16", 0.999)])
def test_an_inner_vector_may_be_off_by_the_chord_of_that_angle(precision: Precision, cosine: float) -> None:
    angle = np.arccos(cosine)
    chord = np.linalg.norm(np.array([1, 0]) - np.array([np.cos(angle), np.sin(angle)]))
    assert stage_of("text_embedding").gate(precision).limit == pytest.approx(chord, rel=1e-6)
    assert stage_of("ranking").gate(precision).limit == pytest.approx(2 * chord, rel=1e-6)


def test_what_must_not_matter_is_held_tighter_than_a_cosine() -> None:
    limits = {precision: stage_of("invariance").gate(precision).limit for precision in PRECISIONS}
    assert limits == {"fp32": 1e-6, "fp16": 2e-3, "bf16": 2e-3, "int8": 2e-3}


def test_int8_is_judged_by_what_is_found() -> None:
    assert {stage_of(name).gate("int8").comparator for name in UNIT_STAGES} == {"finite"}
    gate = stage_of("retrieval").gate("int8")
    assert (gate.comparator, gate.limit) == ("loss", 1.0)
    assert stage_of("invariance").gate("int8").comparator == "max_abs"
