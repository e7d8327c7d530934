"""A split's rankings: the noise that flips are judged by, and each precision's own gate."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from vtr_conformance.report import print_report
from vtr_conformance.results import Report as ConformanceReport
from vtr_conformance.results import Result, Retrieval
from vtr_conformance.retrieval import compare_split, sample_pairs
from vtr_conformance.split import Embedded, EmbeddedSplit, SplitClips
from vtr_runtime.errors import BackendError
from vtr_runtime.manifest import Precision

QUERIES = 40


def host(precision: Precision) -> Any:
    return SimpleNamespace(name="host", backend="engine", precision=precision, note=None)


def embedded(video: np.ndarray, text: np.ndarray) -> Embedded:
    return Embedded(video.astype(np.float32), text.astype(np.float32))


def of_a_clip_each(reference: Embedded) -> EmbeddedSplit:
    """A clip a caption, the n-th belonging to the n-th."""
    count = len(reference.text)
    names, captions = (tuple(f"{what} {n}" for n in range(count)) for what in ("clip", "caption"))
    return EmbeddedSplit(names, captions, np.arange(count), (), reference)


def units(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture
def reference() -> Embedded:
    """Captions near their clips, so that nearly all are found."""
    rng = np.random.default_rng(0)
    video = units(rng.normal(size=(QUERIES, 64)))
    return embedded(video, units(video + 0.05 * rng.normal(size=(QUERIES, 64))))


def judged(want: Embedded, got: Embedded, precision: Precision) -> tuple[Retrieval, dict[str, Result]]:
    """The summary, and the results by stage; those of retrieval from video to text aside."""
    results, summary = compare_split(host(precision), SplitClips("data", "test", ()), of_a_clip_each(want), got)
    assert summary is not None
    return summary, {r.stage: r for r in results if not r.case.endswith("video to text")}


def test_the_noise_is_twice_the_largest_error_and_a_tie_at_least(reference: Embedded) -> None:
    assert judged(reference, reference, "fp16")[0].noise == 2e-5
    video = reference.video.copy()
    video[3, 5] += 1e-3
    summary, _ = judged(reference, embedded(video, reference.text), "fp16")
    assert summary.noise == pytest.approx(2e-3, rel=1e-3)


@pytest.mark.parametrize(("precision", "most"), [("fp32", 2e-5), ("fp16", 2 * 2e-4**0.5), ("bf16", 2 * 2e-3**0.5)])
def test_a_host_that_is_wrong_is_not_excused_by_its_errors(
    reference: Embedded, precision: Precision, most: float
) -> None:
    other = embedded(reference.video[::-1], reference.text)
    summary, results = judged(reference, other, precision)
    assert summary.noise == pytest.approx(most)
    assert summary.t2v.flips_outside > QUERIES / 2
    assert {result.status for stage, result in results.items() if stage != "aligned"} == {"fail"}


@pytest.mark.parametrize(("precision", "bits"), [("fp16", 11), ("bf16", 8)])
def test_embeddings_that_are_only_rounded_pass(reference: Embedded, precision: Precision, bits: int) -> None:
    def rounded(rows: np.ndarray) -> np.ndarray:
        scale = 2.0 ** (np.floor(np.log2(np.abs(rows))) - bits + 1)
        return np.asarray(np.round(rows / scale) * scale)

    _, results = judged(reference, embedded(rounded(reference.video), rounded(reference.text)), precision)
    assert {result.status for result in results.values()} == {"pass"}
    assert results["aligned"].unit == "1 - cosine"


def narrow(size: float) -> tuple[Embedded, Embedded]:
    """200 clips and captions that differ in 6 of 1024 directions, and the same with errors of a size in these alone, as
    a tower rounds."""
    rng = np.random.default_rng(5)
    basis, _ = np.linalg.qr(rng.normal(size=(1024, 6)))
    video, text = (units(rng.normal(size=(200, 6))) for _ in range(2))
    errors = size * units(rng.normal(size=(200, 6)))
    return embedded(video @ basis.T, text @ basis.T), embedded(units(video + errors) @ basis.T, text @ basis.T)


def test_errors_along_the_directions_in_which_clips_differ_are_noise() -> None:
    want, got = narrow(0.014)  # 1 - cosine is 1e-4
    summary, results = judged(want, got, "bf16")
    assert summary.t2v.largest_top10 > 2 * np.abs(want.video - got.video).max()  # independent ones would not do that
    assert results["retrieval"].status == "pass"
    # The deviation of a difference by its definition, over all pairs of items; the errors here are near to normal.
    error = (got.text @ got.video.T - want.text @ want.video.T).astype(np.float64)
    ways = [np.median(np.std(side[:, :, None] - side[:, None, :], axis=(1, 2))) for side in (error, error.T)]
    assert summary.noise == pytest.approx(6 * max(ways), rel=0.15)


def test_a_clip_that_is_worse_off_than_the_others_is_beyond_it() -> None:
    """Its cosine is good: it is moved by 0.04, against 0.002 of the others, towards a query that it answers second."""
    want, got = narrow(0.002)
    scores = want.text @ want.video.T
    second, first = np.sort(scores, axis=1)[:, -2:].T
    query = int(np.abs(first - second - 0.011).argmin())
    clip = int(scores[query].argsort()[-2])
    across = want.text[query] - scores[query, clip] * want.video[clip]
    video = got.video.copy()
    video[clip] = units((want.video[clip] + 0.04 * across / np.linalg.norm(across))[None])[0]
    summary, results = judged(want, embedded(video, got.text), "bf16")
    assert results["video_embedding"].status == "pass"
    assert summary.t2v.worst is not None
    assert summary.t2v.worst.host_best == f"clip {clip}"
    assert results["retrieval"].status == "fail"


def leaning(margin: float, step: float) -> tuple[Embedded, Embedded]:
    """A query that prefers clip 0 to clip 1 by `margin`, and the same with every number of clip 1 moved by `step`
    towards the query: the score rises by some 8 times that, as independent errors never would. Six clips with captions
    of their own stand aside, as they were."""
    place = np.arange(64)
    query, *aside = np.stack([np.ones(64), (-1.0) ** place, (-1.0) ** (place // 2)]) / 8
    others = np.stack([(-1.0) ** (place // 4 + place // 2 * n) for n in range(2)]) / 8
    others = np.concatenate([others, -others, np.stack([(-1.0) ** (place // 8), (-1.0) ** (place // 16)]) / 8])
    cosines = np.array([0.6, 0.6 - margin])
    video = cosines[:, None] * query + np.sqrt(1 - cosines**2)[:, None] * np.stack(aside)
    moved = video + np.array([[0.0], [1.0]]) * step
    texts = np.concatenate([[query, video[1]], others])
    video, moved = (np.concatenate([rows, others]) for rows in (video, units(moved)))
    return embedded(video, texts), embedded(moved, texts)


def test_a_flip_inside_the_noise_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    summary, results = judged(*leaning(margin=0.001, step=0.001), "fp16")
    assert (summary.t2v.flips, summary.t2v.flips_outside) == (1, 0)
    assert summary.t2v.largest_flip == pytest.approx(0.001, rel=1e-3)
    assert results["retrieval"].status == "pass"
    print_report(ConformanceReport(tuple(results.values()), (summary,), "fp16"), "title")
    printed = " ".join(capsys.readouterr().out.split())
    assert "what changed" in printed
    assert (
        "worst query, text to video: 'caption 0' first on pytorch: 'clip 0' (pytorch 0.600000, host 0.600000)"
        in printed
    )
    assert "first on host: 'clip 1' (pytorch 0.599000, host 0.60" in printed


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_a_flip_outside_the_noise_fails_though_every_cosine_is_good(precision: Precision) -> None:
    summary, results = judged(*leaning(margin=0.0045, step=0.001), precision)
    assert (summary.t2v.flips, summary.t2v.flips_outside) == (1, 1)
    assert summary.t2v.largest_flip > summary.noise
    assert {stage: result.status for stage, result in results.items()} == {
        "video_embedding": "pass",
        "aligned": "pass",
        "ranking": "pass",
        "retrieval": "fail",
    }
    assert results["retrieval"].where == "first item at query 0 ('caption 0')"


@pytest.mark.parametrize(("lost", "status"), [(0, "pass"), (2, "fail")])
def test_int8_may_lose_one_point_of_recall(reference: Embedded, lost: int, status: str) -> None:
    text = reference.text.copy()
    text[:lost] = -text[:lost]
    summary, results = judged(reference, embedded(reference.video, text), "int8")
    assert summary.t2v.reference["R@1"] - summary.t2v.figures["R@1"] == pytest.approx(100 * lost / QUERIES)
    assert results["retrieval"].status == status
    assert results["aligned"].status == "pass"
    assert summary.t2v.flips == lost


def test_a_model_that_retrieves_nothing_proves_nothing_of_int8() -> None:
    rng = np.random.default_rng(1)
    blind = embedded(units(rng.normal(size=(QUERIES, 8))), units(rng.normal(size=(QUERIES, 8))))
    summary, results = judged(blind, blind, "int8")
    assert not summary.meaningful
    assert results["retrieval"].status == "not_run"
    assert "give a split on which it retrieves" in results["retrieval"].hint


def test_the_table_tells_what_changed(reference: Embedded, capsys: pytest.CaptureFixture[str]) -> None:
    text = reference.text.copy()
    text[:2] = -text[:2]
    summary, results = judged(reference, embedded(reference.video, text), "int8")
    print_report(ConformanceReport(tuple(results.values()), (summary,), "int8"), "title")
    printed = " ".join(capsys.readouterr().out.split())
    lost = summary.t2v.figures["R@1"] - summary.t2v.reference["R@1"]
    assert f"({lost:+.3g})" in printed
    assert f"Rsum {summary.rsum:.1f} ({summary.rsum - summary.reference_rsum:+.1f})" in printed


def test_both_ways_and_their_sum(reference: Embedded) -> None:
    summary, _ = judged(reference, reference, "fp32")
    sums = [sum(way.figures[f"R@{k}"] for k in (1, 5, 10)) for way in (summary.t2v, summary.v2t)]
    assert summary.rsum == summary.reference_rsum == pytest.approx(sum(sums))
    assert (summary.v2t.queries, summary.v2t.gallery) == (QUERIES, QUERIES)


def test_a_video_with_more_captions_is_found_by_any_of_them() -> None:
    """Captions 0 and 1 belong to clip 0: from video to text either is right."""
    video, text = np.eye(3), np.array([[0.9, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1.0]])
    split = EmbeddedSplit(("a", "b", "c"), ("0", "1", "2", "3"), np.array([0, 0, 1, 2]), (), embedded(video, text))
    _, summary = compare_split(host("fp32"), SplitClips("data", "test", ()), split, split.reference)
    assert summary is not None
    assert (summary.texts, summary.videos, summary.v2t.gallery) == (4, 3, 4)
    assert summary.v2t.figures["R@1"] == summary.t2v.figures["R@1"] == 100


@pytest.mark.parametrize(
    ("change", "stage"),
    [
        (lambda rows: np.where(np.arange(len(rows))[:, None] == 3, np.nan, rows), "video_embedding"),
        (lambda rows: rows[:, :8], "video_embedding"),
    ],
)
def test_embeddings_that_cannot_be_ranked_fail_and_end_nothing(reference: Embedded, change: Any, stage: str) -> None:
    got = Embedded(change(reference.video), reference.text)
    chosen, split = SplitClips("data", "test", ()), of_a_clip_each(reference)
    results, summary = compare_split(host("fp32"), chosen, split, got)
    assert summary is None
    assert {r.stage for r in results if r.status == "fail"} == {stage, "retrieval"}
    assert results[-1].where == f"its embeddings cannot be ranked: see {stage}"


def test_a_host_that_raised_fails_in_its_words(reference: Embedded) -> None:
    error = BackendError("the engine is gone")
    chosen, split = SplitClips("data", "test", ()), of_a_clip_each(reference)
    [result], summary = compare_split(host("fp32"), chosen, split, error)
    assert summary is None
    assert (result.stage, result.status, result.where) == ("retrieval", "fail", "the engine is gone")


def test_pairs_are_all_scores_or_a_sample_of_own_and_other_clips(reference: Embedded) -> None:
    split = of_a_clip_each(reference)
    got = embedded(reference.video, -reference.text)
    everything = reference.text.astype(np.float64) @ reference.video.T
    pairs = np.array(sample_pairs(split, got))
    assert np.allclose(np.sort(pairs[:, 0]), np.sort(everything.ravel()), atol=1e-6)
    assert np.allclose(pairs[:, 1], -pairs[:, 0], atol=2e-6)
    few = sample_pairs(split, got, 50)
    assert few == sample_pairs(split, got, 50)
    own = {round(float(score), 6) for score in np.diag(everything)}
    assert len(few) == 50
    assert all(min(abs(score - one) for one in own) < 2e-6 for score, _ in few[:25])
