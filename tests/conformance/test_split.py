"""A split's rankings: flips by hand, the noise they are judged by, and each precision's own gate."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from vtr_conformance.report import print_report
from vtr_conformance.results import Report as ConformanceReport
from vtr_conformance.results import Retrieval
from vtr_conformance.retrieval import _judge_split, flip_margins, noise_of, summarise
from vtr_runtime.manifest import Precision
from vtr_training.embed import EmbeddedSplit

QUERIES = 40


def host(precision: Precision) -> Any:
    return SimpleNamespace(name="host", backend="engine", precision=precision, note=None)


def split(video: np.ndarray, text: np.ndarray) -> EmbeddedSplit:
    """A clip a caption, the n-th belonging to the n-th."""
    clips: Any = tuple(range(len(video)))
    return EmbeddedSplit(clips, video.astype(np.float32), text.astype(np.float32), np.arange(len(text)), ())


def units(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture
def reference() -> EmbeddedSplit:
    """Captions near their clips, so that nearly all are found."""
    rng = np.random.default_rng(0)
    video = units(rng.normal(size=(QUERIES, 64)))
    return split(video, units(video + 0.05 * rng.normal(size=(QUERIES, 64))))


def judged(want: EmbeddedSplit, got: EmbeddedSplit, precision: Precision) -> tuple[Retrieval, dict[str, Any]]:
    summary = summarise(host(precision), "test", want, got)
    return summary, {result.stage: result for result in _judge_split(host(precision), "case", want, got, summary)}


def test_a_flip_is_as_large_as_the_references_preference() -> None:
    want = np.array([[0.9, 0.5, 0.4], [0.3, 0.8, 0.7], [0.1, 0.2, 0.3]])
    got = np.array([[0.9, 0.5, 0.4], [0.3, 0.6, 0.7], [0.4, 0.2, 0.3]])
    assert np.allclose(flip_margins(want, got), [np.nan, 0.1, 0.2], equal_nan=True)


def test_the_noise_is_twice_the_largest_error_and_a_tie_at_least(reference: EmbeddedSplit) -> None:
    assert noise_of(reference, reference) == 2e-5
    video = reference.video.copy()
    video[3, 5] += 1e-3
    assert noise_of(reference, split(video, reference.text)) == pytest.approx(2e-3, rel=1e-3)


@pytest.mark.parametrize(("precision", "bits"), [("fp16", 11), ("bf16", 8)])
def test_embeddings_that_are_only_rounded_pass(reference: EmbeddedSplit, precision: Precision, bits: int) -> None:
    def rounded(rows: np.ndarray) -> np.ndarray:
        scale = 2.0 ** (np.floor(np.log2(np.abs(rows))) - bits + 1)
        return np.asarray(np.round(rows / scale) * scale)

    _, results = judged(reference, split(rounded(reference.video), rounded(reference.text)), precision)
    assert {result.status for result in results.values()} == {"pass"}
    assert results["aligned"].unit == "1 - cosine"


def leaning(margin: float, step: float) -> tuple[EmbeddedSplit, EmbeddedSplit]:
    """A query that prefers clip 0 to clip 1 by `margin`, and the same with every number of clip 1 moved by `step`
    towards the query: the score rises by some 8 times that, as independent errors never would."""
    place = np.arange(64)
    query, *aside = np.stack([np.ones(64), (-1.0) ** place, (-1.0) ** (place // 2)]) / 8
    cosines = np.array([0.6, 0.6 - margin])
    video = cosines[:, None] * query + np.sqrt(1 - cosines**2)[:, None] * np.stack(aside)
    moved = video + np.array([[0.0], [1.0]]) * step
    texts = np.stack([query, video[1]])
    return split(video, texts), split(units(moved), texts)


def test_a_flip_inside_the_noise_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    summary, results = judged(*leaning(margin=0.001, step=0.001), "fp16")
    assert (summary.flips, summary.flips_outside) == (1, 0)
    assert summary.largest_flip == pytest.approx(0.001, rel=1e-3)
    assert results["retrieval"].status == "pass"
    print_report(ConformanceReport(tuple(results.values()), (summary,), "fp16"), "title")
    assert "other top 1" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_a_flip_outside_the_noise_fails_though_every_cosine_is_good(precision: Precision) -> None:
    summary, results = judged(*leaning(margin=0.0045, step=0.001), precision)
    assert (summary.flips, summary.flips_outside) == (1, 1)
    assert summary.largest_flip > summary.noise
    assert {stage: result.status for stage, result in results.items()} == {
        "video_embedding": "pass",
        "aligned": "pass",
        "ranking": "pass",
        "retrieval": "fail",
    }
    assert results["retrieval"].where.endswith("at caption 0")


@pytest.mark.parametrize(("lost", "status"), [(0, "pass"), (2, "fail")])
def test_int8_may_lose_one_point_of_recall(reference: EmbeddedSplit, lost: int, status: str) -> None:
    text = reference.text.copy()
    text[:lost] = -text[:lost]
    summary, results = judged(reference, split(reference.video, text), "int8")
    assert summary.reference_recall["R@1"] - summary.recall["R@1"] == pytest.approx(100 * lost / QUERIES)
    assert results["retrieval"].status == status
    assert results["aligned"].status == "pass"
    assert summary.flips == lost


def test_a_model_that_retrieves_nothing_proves_nothing_of_int8() -> None:
    rng = np.random.default_rng(1)
    blind = split(units(rng.normal(size=(QUERIES, 8))), units(rng.normal(size=(QUERIES, 8))))
    summary, results = judged(blind, blind, "int8")
    assert not summary.meaningful
    assert results["retrieval"].status == "not_run"
    assert "give a split on which it retrieves" in results["retrieval"].hint


def test_the_table_tells_what_changed(reference: EmbeddedSplit, capsys: pytest.CaptureFixture[str]) -> None:
    text = reference.text.copy()
    text[:2] = -text[:2]
    summary, results = judged(reference, split(reference.video, text), "int8")
    print_report(ConformanceReport(tuple(results.values()), (summary,), "int8"), "title")
    printed = " ".join(capsys.readouterr().out.split())
    assert f"({summary.recall['R@1'] - summary.reference_recall['R@1']:+.1f})" in printed
    assert "other top 1" in printed
