"""What must not matter and does is found, and shrunk to a smallest input that shows it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

from vtr_conformance.hosts import Host, RuntimeHost
from vtr_conformance.hosts.base import Arrays
from vtr_conformance.properties import check_properties
from vtr_conformance.properties.search import Pair, Property, search
from vtr_conformance.results import Result
from vtr_conformance.rows import run_rows
from vtr_runtime.errors import BackendError
from vtr_runtime.manifest import GraphSpec, Manifest, RerankSpec, TensorSpec
from vtr_runtime.model import Model

from .changed_host import Change, Changed

END = 49407
VIDEO = [
    "video, any batch, slot and order",
    "video, equal rows",
    "video, pixels of masked frames",
    "video, the same input twice",
    "video, finite and of unit length",
]
TEXT = [
    "text, any batch, slot and order",
    "text, equal rows",
    "text, padding",
    "text, tokens behind the end",
    "text, the same input twice",
    "text, finite and of unit length",
]


def checked(model: Model, change: Change, *, batch: int = 8) -> dict[str, Result]:
    return {r.case: r for r in check_properties(Changed(model, change), model.manifest, batch)}


def failed(results: dict[str, Result]) -> dict[str, str]:
    """Case -> where."""
    return {case: result.where for case, result in results.items() if result.status == "fail"}


def test_a_sound_host_meets_every_property(small_model: Model) -> None:
    results = list(check_properties(RuntimeHost(small_model), small_model.manifest, 8))
    assert [result.case for result in results] == VIDEO + TEXT
    assert {(result.stage, result.status) for result in results} == {("invariance", "pass")}
    assert all(result.where.split()[0].isdecimal() for result in results)  # how many inputs were tried
    assert {result.limit for result in results if result.case.endswith("twice")} == {0}


def leak_into_the_first_row(graph: str, _: Arrays, embeddings: np.ndarray) -> np.ndarray:
    """From batches of three on."""
    if graph == "video" and len(embeddings) >= 3:
        embeddings[0] += 1e-3
    return embeddings


def test_a_leak_in_large_batches_is_shrunk_to_the_smallest(small_model: Model) -> None:
    found = failed(checked(small_model, leak_into_the_first_row))
    row = "black, frame 0 of 12"
    assert found["video, any batch, slot and order"].startswith(
        f"batch 3 of {row} | {row} | {row}: embedding at row 0, number "
    )
    assert found["video, equal rows"].startswith(f"batch 3 of {row} | {row} | {row}; rows 0 and 1 are the same: ")
    assert set(found) == {"video, any batch, slot and order", "video, equal rows"}


def offset_by_slot(graph: str, _: Arrays, embeddings: np.ndarray) -> np.ndarray:
    return embeddings + 1e-5 * np.arange(len(embeddings))[:, None] if graph == "text" else embeddings


def test_an_offset_by_slot_is_shrunk_to_two_rows(small_model: Model) -> None:
    found = failed(checked(small_model, offset_by_slot))
    rows = "batch 2 of 16 tokens, end of text at 1, 1"
    assert set(found) == {"text, any batch, slot and order", "text, equal rows"}
    assert found["text, any batch, slot and order"].startswith(f"{rows}: embedding at row 1, number ")
    assert found["text, equal rows"].startswith(f"{rows}; rows 0 and 1 are the same: embedding at row 0")


def at_the_seventh_slot(graph: str, _: Arrays, embeddings: np.ndarray) -> np.ndarray:
    if graph == "text":
        embeddings[6:7] += 1e-4
    return embeddings


def test_a_slot_that_only_large_batches_have_is_found(small_model: Model) -> None:
    found = failed(checked(small_model, at_the_seventh_slot))
    expected = "batch 7 of 16 tokens, end of text at 1, 1, 1, 1, 1, 1, 1: embedding at row 6, number "
    assert found["text, any batch, slot and order"].startswith(expected)


def neighbours(graph: str, _: Arrays, embeddings: np.ndarray) -> np.ndarray:
    return embeddings + 1e-3 * np.roll(embeddings, 1, axis=0) if graph == "text" else embeddings


def test_rows_that_see_each_other_need_two_that_differ(small_model: Model) -> None:
    """A row that sees itself is only longer: one alone breaks its length, two different ones the batch."""
    found = failed(checked(small_model, neighbours))
    assert set(found) == {
        "text, any batch, slot and order",
        "text, equal rows",
        "text, finite and of unit length",
    }
    assert found["text, any batch, slot and order"].startswith("batch 2 of 16 tokens, end of text at 1, 2: ")
    assert found["text, finite and of unit length"] == "the empty caption: norm at row 0"


THRESHOLD = 40_000


def high_ids_behind_the_end(_: str, feed: Arrays, embeddings: np.ndarray) -> np.ndarray:
    if "input_ids" in feed:
        ids = feed["input_ids"]
        ends = (ids == END).argmax(axis=1)
        behind = np.arange(ids.shape[1]) > ends[:, None]
        embeddings[((ids > THRESHOLD) & behind).any(axis=1)] *= 1.001
    return embeddings


def test_a_token_behind_the_end_is_shrunk_to_the_smallest_that_counts(small_model: Model) -> None:
    found = failed(checked(small_model, high_ids_behind_the_end))
    [(case, where)] = found.items()
    assert case == "text, tokens behind the end"
    assert where.startswith(f"end of text at 1, behind it 1 token, {THRESHOLD + 1}: embedding at row 0")


def padding_from_40(_: str, feed: Arrays, embeddings: np.ndarray) -> np.ndarray:
    if "input_ids" in feed and feed["input_ids"].shape[1] >= 40:
        embeddings *= 1 + 5e-6
    return embeddings


def test_padding_is_shrunk_to_the_shortest_that_counts(small_model: Model) -> None:
    found = failed(checked(small_model, padding_from_40))
    assert list(found) == ["text, padding"]
    assert found["text, padding"].startswith("end of text at 1, 40 tokens: ")


def length_of_black(graph: str, feed: Arrays, embeddings: np.ndarray) -> np.ndarray:
    """Black frames come out un-normalised."""
    if graph == "video":
        shown = feed["frames"] * feed["frame_mask"][:, :, None, None, None]
        embeddings[~shown.any(axis=(1, 2, 3, 4))] *= 3
    return embeddings


def test_black_frames_that_lose_their_length_are_named(small_model: Model) -> None:
    results = checked(small_model, length_of_black)
    assert failed(results) == {VIDEO[-1]: "black, frame 0 of 12: norm at row 0"}
    assert results[VIDEO[-1]].measured == pytest.approx(2, abs=1e-5)
    assert results[VIDEO[-1]].unit == "|norm - 1|"


def test_an_empty_caption_that_is_not_finite_is_named(small_model: Model) -> None:
    def empty(_: str, feed: Arrays, embeddings: np.ndarray) -> np.ndarray:
        if "input_ids" in feed and feed["input_ids"].shape[1] == 2:
            embeddings[:] = np.nan
        return embeddings

    found = failed(checked(small_model, empty))
    assert found[TEXT[-1]] == "the empty caption: norm: not finite at row 0"


def bright_where_hidden(_: str, feed: Arrays, embeddings: np.ndarray) -> np.ndarray:
    if "frames" in feed:
        hidden = np.where(feed["frame_mask"][:, :, None, None, None], 0, feed["frames"])
        embeddings[(hidden == 255).all(axis=(2, 3, 4)).any(axis=1)] += 1e-4
    return embeddings


def test_a_picture_behind_the_mask_is_told(small_model: Model) -> None:
    found = failed(checked(small_model, bright_where_hidden))
    assert list(found) == ["video, pixels of masked frames"]
    where = found["video, pixels of masked frames"]
    assert where.startswith("black, frame 0 of 12; the others are white: embedding at row 0")


def test_a_host_that_counts_its_calls_is_not_deterministic(small_model: Model) -> None:
    calls = iter(range(10**6))

    def counting(graph: str, _: Arrays, embeddings: np.ndarray) -> np.ndarray:
        return embeddings * np.float32(1 + 1e-7 * (next(calls) % 2)) if graph == "text" else embeddings

    found = failed(checked(small_model, counting))
    assert list(found) == ["text, the same input twice"]
    assert found["text, the same input twice"].startswith("batch 1 of 16 tokens, end of text at 1: ")


def test_the_same_installation_finds_the_same(small_model: Model) -> None:
    first, second = (checked(small_model, high_ids_behind_the_end) for _ in range(2))
    assert first == second


def test_a_host_that_raises_fails_in_its_own_words_and_is_not_asked_again(small_model: Model) -> None:
    asked: list[int] = []

    def refuse(graph: str, _: Arrays, embeddings: np.ndarray) -> np.ndarray:
        if graph == "video" and len(embeddings) >= 3:
            asked.append(len(embeddings))
            raise BackendError("batch 3 is outside the profile")
        return embeddings

    results = checked(small_model, refuse)
    assert set(failed(results)) <= {VIDEO[0], VIDEO[1], VIDEO[3]}
    assert failed(results)[VIDEO[0]].startswith("batch 8 of ")
    assert failed(results)[VIDEO[0]].endswith(": batch 3 is outside the profile")
    assert len(asked) == len(failed(results))
    assert results[VIDEO[0]].measured is None


@pytest.mark.parametrize(
    ("outputs", "words"),
    [
        ({"other": np.zeros((1, 4))}, "no output embedding; it has other"),
        ({"embedding": np.zeros((3, 4), np.float32)}, r"shape \[3, 4\] for 1 rows"),
    ],
)
def test_an_answer_of_another_form_is_the_hosts_error(outputs: Arrays, words: str) -> None:
    class Strange:
        def run(self, graph: str, feed: Arrays) -> Arrays:  # noqa: ARG002
            return outputs

    host: Any = Strange()
    with pytest.raises(BackendError, match=words):
        run_rows(host, "text", {"input_ids": np.zeros((1, 4), np.int32)}, 8)


def test_time_ends_the_search_and_its_shrinking(small_model: Model) -> None:
    """A slow host: what was found stands, and little more is asked."""
    asked: list[int] = []

    def run(number: int) -> Pair:
        asked.append(number)
        time.sleep(0.05)
        return Pair({"x": np.zeros(1)}, {"x": np.array([float(number > 1000)])})

    slow = Property("slow", (), st.integers(0, 10**6), run, str)
    result = search(RuntimeHost(small_model), slow, 20, seconds=0.3)
    assert result.status == "fail"
    assert len(asked) <= 8
    passing = Property("slow", (), st.integers(0, 1000), run, str)
    result = search(RuntimeHost(small_model), passing, 50, seconds=0.0)
    assert (result.status, result.where) == ("pass", "2 inputs, then time was up")


def test_a_named_input_is_tried_whatever_is_drawn(small_model: Model) -> None:
    def run(number: int) -> Pair:
        return Pair({"x": np.zeros(1)}, {"x": np.array([float(number == 5)])})

    found = search(RuntimeHost(small_model), Property("five", [4, 5], st.integers(0, 3), run, "number {}".format), 20)
    assert (found.status, found.where) == ("fail", "number 5: x at row 0")


def test_a_profile_of_one_row_has_no_twins(small_model: Model) -> None:
    cases = {r.case for r in check_properties(RuntimeHost(small_model), small_model.manifest, 1)}
    assert cases == {*VIDEO, *TEXT} - {"video, equal rows", "text, equal rows"}


def test_a_host_that_proves_nothing_is_not_run(small_model: Model) -> None:
    host = RuntimeHost(small_model)
    host.note = "emulated"
    results = list(check_properties(host, small_model.manifest, 8))
    assert [(r.case, r.status, r.hint) for r in results] == [(case, "not_run", "emulated") for case in VIDEO + TEXT]


RERANK_INPUTS = ("embedding", "word_embeddings", "word_mask", "frame_embeddings", "frame_mask")


@pytest.fixture(scope="module")
def with_rerank(small_model: Model) -> Manifest:
    tensors = tuple(TensorSpec(name=name, dtype="float32", shape=()) for name in RERANK_INPUTS)
    manifest = small_model.manifest
    graphs = manifest.graphs.model_copy(update={"rerank": GraphSpec(file="rerank.onnx", inputs=tensors, outputs=())})
    spec = RerankSpec(kind="token-wise", weight=1.0)
    return manifest.model_copy(update={"graphs": graphs, "rerank": spec})


class Maximum(RuntimeHost):
    """A second stage of its own: the mean over the words of the best frame's cosine."""

    hides_frames = hides_words = sees_one = True

    def run(self, graph: str, feed: Arrays) -> Arrays:
        if graph != "rerank":
            return super().run(graph, feed)
        assert set(feed) == set(RERANK_INPUTS)
        shown = feed["word_mask"] if self.hides_words else np.ones_like(feed["word_mask"])
        similarity = np.einsum("ld,ktd->klt", feed["word_embeddings"], feed["frame_embeddings"])
        if self.hides_frames:
            similarity = np.where(feed["frame_mask"][:, None], similarity, -1.0)
        best = similarity.max(axis=2)[:, shown].mean(axis=1)
        return {"scores": best if self.sees_one else best - best.mean()}


def of_second_stage(host: Host, manifest: Manifest) -> dict[str, Result]:
    return {r.case: r for r in check_properties(host, manifest, 8) if r.case.startswith("rerank")}


def test_a_sound_second_stage_meets_every_property(small_model: Model, with_rerank: Manifest) -> None:
    results = of_second_stage(Maximum(small_model), with_rerank)
    assert {result.status for result in results.values()} == {"pass"}
    assert list(results) == [
        "rerank, any batch, slot and order",
        "rerank, equal rows",
        "rerank, masked frames",
        "rerank, masked words",
        "rerank, the same input twice",
        "rerank, finite",
    ]


@pytest.mark.parametrize(
    ("fault", "case", "where"),
    [
        ("hides_frames", "rerank, masked frames", "candidate 1, masked frames replaced by 1 times the query: "),
        ("hides_words", "rerank, masked words", "candidate 0, masked words replaced by 1 times the query: "),
        ("sees_one", "rerank, any batch, slot and order", "2 candidates: 0, 1: scores at row "),
    ],
)
def test_a_second_stage_that_sees_what_it_should_not_is_found(
    small_model: Model, with_rerank: Manifest, fault: str, case: str, where: str
) -> None:
    host = Maximum(small_model)
    setattr(host, fault, False)
    assert failed(of_second_stage(host, with_rerank))[case].startswith(where)


def test_the_command_leaves_no_folder_of_hypothesis(
    small_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import subprocess
    import sys

    monkeypatch.chdir(tmp_path)
    words = [sys.executable, "-m", "vtr_conformance", "run", str(small_bundle), "--batch", "1:1:2", "--examples", "2"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []
