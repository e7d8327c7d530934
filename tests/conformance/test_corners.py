"""The corners hold every batch, mask, length and end of text; a host that goes wrong at one of them is found."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from vtr_conformance.corners import BATCHES, Corner, check_corners, corners, expect
from vtr_conformance.hosts import RuntimeHost
from vtr_conformance.hosts.base import Arrays
from vtr_conformance.results import Result
from vtr_runtime.errors import BackendError
from vtr_runtime.manifest import GraphSpec, Manifest, RerankSpec, TensorSpec
from vtr_runtime.model import Model

from .changed_host import Change, Changed


@pytest.fixture(scope="module")
def places(small_model: Model) -> list[Corner]:
    return corners(small_model.manifest)


@pytest.fixture(scope="module")
def expected(small_model: Model, places: list[Corner]) -> list[Arrays | None]:
    return expect(RuntimeHost(small_model), places, 8)


def failed(results: Sequence[Result]) -> list[str]:
    return [result.case for result in results if result.status == "fail"]


def test_every_batch_is_met_by_video_and_text(places: list[Corner]) -> None:
    for graph, name in (("video", "frames"), ("text", "input_ids")):
        sizes = {len(corner.feed[name]) for corner in places if corner.graph == graph}
        assert sizes >= set(BATCHES)


def test_the_masks_show_first_last_hole_and_other_numbers_of_frames(places: list[Corner]) -> None:
    masks = next(corner.feed["frame_mask"] for corner in places if corner.name == "batch 8")
    rows = {tuple(row) for row in masks.tolist()}
    only = np.eye(12, dtype=bool)
    assert {tuple(only[0]), tuple(only[11]), (True,) * 12} <= rows
    assert any(row[0] and not row[1] and row[2] for row in rows)  # a hole
    assert len({sum(row) for row in rows}) >= 6
    assert masks.any(axis=1).all()


def test_the_end_of_text_stands_at_every_place(places: list[Corner]) -> None:
    ends: set[int] = set()
    for corner in places:
        if corner.graph == "text":
            for row in corner.feed["input_ids"].tolist():
                assert row[0] == 49406
                end = row.index(49407)
                assert not any(row[end + 1 :])
                ends.add(end)
    assert ends == set(range(1, 77))


@pytest.mark.parametrize("length", [2, 3, 16, 77])
@pytest.mark.parametrize("size", BATCHES)
def test_every_length_is_run_at_every_batch_and_filled(places: list[Corner], length: int, size: int) -> None:
    [ids] = [c.feed["input_ids"] for c in places if c.graph == "text" and c.feed["input_ids"].shape == (size, length)]
    assert (ids[:, -1] == 49407).any()
    assert size < 3 or (ids[:, 1] == 49407).any()  # an empty sentence


def test_large_batches_repeat_rows_and_ask_the_reference_once(small_model: Model) -> None:
    asked = []

    class Counting(RuntimeHost):
        def run(self, graph: str, feed: Arrays) -> Arrays:
            asked.append(len(next(iter(feed.values()))))
            return super().run(graph, feed)

    found = [corner for corner in corners(small_model.manifest, (1, 16, 32)) if corner.graph == "video"]
    wants = expect(Counting(small_model), found, 32)
    assert [len(corner.feed["frames"]) for corner in found] == [1, 16, 32]
    assert asked == [1, 8, 8]
    assert all(r.status == "pass" for r in check_corners(RuntimeHost(small_model), found, wants, 32))


def at_batch_8(_: str, feed: Arrays, embeddings: np.ndarray) -> np.ndarray:
    return embeddings + 1e-3 if len(next(iter(feed.values()))) == 8 and "frames" in feed else embeddings


def at_end_41(_: str, feed: Arrays, embeddings: np.ndarray) -> np.ndarray:
    if "input_ids" in feed:
        embeddings[(feed["input_ids"] == 49407).argmax(axis=1) == 41] *= -1
    return embeddings


def nan_of_last_frame(_: str, feed: Arrays, embeddings: np.ndarray) -> np.ndarray:
    if "frame_mask" in feed:
        embeddings[feed["frame_mask"][:, -1] & (feed["frame_mask"].sum(axis=1) == 1)] = np.nan
    return embeddings


@pytest.mark.parametrize(
    ("change", "cases"),
    [
        (at_batch_8, {"video, batch 8"}),
        (at_end_41, {"text, end of text at 41 to 48"}),
        (nan_of_last_frame, {"video, batch 3", "video, batch 8"}),
    ],
)
def test_what_goes_wrong_at_one_corner_is_found_there(
    small_model: Model, places: list[Corner], expected: list[Arrays | None], change: Change, cases: set[str]
) -> None:
    results = list(check_corners(Changed(small_model, change), places, expected, 8))
    assert {result.stage for result in results} == {"corners"}
    assert set(failed(results)) == cases
    assert len(results) == len(places)


def test_without_a_reference_an_embedding_must_be_of_unit_length(small_model: Model, places: list[Corner]) -> None:
    nothing = expect(None, places, 8)
    assert not failed(list(check_corners(RuntimeHost(small_model), places, nothing, 8)))
    longer = Changed(small_model, lambda graph, _, embeddings: embeddings * (1.01 if graph == "text" else 1))
    cases = failed(list(check_corners(longer, places, nothing, 8)))
    assert len(cases) == 22
    assert all(case.startswith("text") for case in cases)
    assert failed(list(check_corners(Changed(small_model, nan_of_last_frame), places, nothing, 8)))


def test_a_host_that_raises_fails_that_corner_only(small_model: Model, places: list[Corner]) -> None:
    def refuse(_: str, feed: Arrays, embeddings: np.ndarray) -> np.ndarray:
        if "frames" in feed and len(embeddings) == 3:
            raise BackendError("batch 3 is outside the profile")
        return embeddings

    results = list(check_corners(Changed(small_model, refuse), places, expect(None, places, 8), 8))
    assert failed(results) == ["video, batch 3"]
    assert next(r.where for r in results if r.status == "fail") == "batch 3 is outside the profile"


def test_a_host_that_proves_nothing_is_not_run(small_model: Model, places: list[Corner]) -> None:
    host = RuntimeHost(small_model)
    host.note = "emulated"
    results = list(check_corners(host, places, expect(None, places, 8), 8))
    assert {(result.status, result.hint) for result in results} == {("not_run", "emulated")}


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

    def run(self, graph: str, feed: Arrays) -> Arrays:
        assert (graph, set(feed)) == ("rerank", set(RERANK_INPUTS))
        similarity = np.einsum("ld,ktd->klt", feed["word_embeddings"], feed["frame_embeddings"])
        similarity = np.where(feed["frame_mask"][:, None], similarity, -1.0)
        return {"scores": similarity.max(axis=2)[:, feed["word_mask"]].mean(axis=1)}


def test_the_second_stage_has_corners_of_its_own(small_model: Model, with_rerank: Manifest) -> None:
    found = [corner for corner in corners(with_rerank) if corner.graph == "rerank"]
    assert {len(corner.feed["frame_mask"]) for corner in found} == set(BATCHES)
    assert {len(corner.feed["word_mask"]) for corner in found} == {2, 3, 16, 77}
    host = Maximum(small_model)
    results = list(check_corners(host, found, expect(host, found, 8), 8))
    assert {(result.stage, result.status) for result in results} == {("rerank", "pass")}


def test_int8_corners_are_held_to_their_length_alone(
    small_model: Model, places: list[Corner], expected: list[Arrays | None]
) -> None:
    host = Changed(small_model, lambda _, __, embeddings: embeddings[:, ::-1])
    host.precision = "int8"
    results = list(check_corners(host, places, expected, 8))
    assert not failed(results)
    assert {result.unit for result in results} == {"|norm - 1|"}
