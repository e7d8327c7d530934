"""Rounding up, splitting and cutting of shapes; profiles of engines; what providers are told."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vtr_runtime import Model
from vtr_runtime.backends.base import BackendOptions
from vtr_runtime.backends.coverage import Coverage, check_coverage, read_coverage
from vtr_runtime.backends.openvino import ROWS
from vtr_runtime.backends.profile_plan import ProfilePlan
from vtr_runtime.backends.providers import cache_folder, largest_axes, provider_buckets, provider_options, tf32_note
from vtr_runtime.backends.shapes import Axes, Buckets, check_feed, padded, powers_of_two, run_in_buckets
from vtr_runtime.engines.device import DeviceInfo
from vtr_runtime.engines.profiles import ProfileRequest, Range, graph_profiles, input_shapes
from vtr_runtime.errors import BackendError
from vtr_runtime.manifest import GraphSpec, TensorSpec

ADA = DeviceInfo("RTX 4090", "89", "13.0", 24 << 30, 20 << 30, False)
SMALL = Buckets((1, 2, 4), (4, 16, 77))
RERANK = GraphSpec(
    file="rerank.onnx",
    inputs=(
        TensorSpec(name="word_embeddings", dtype="float32", shape=("tokens", 3)),
        TensorSpec(name="word_mask", dtype="bool", shape=("tokens",)),
        TensorSpec(name="frame_embeddings", dtype="float32", shape=("candidates", 2, 3)),
        TensorSpec(name="frame_mask", dtype="bool", shape=("candidates", 2)),
    ),
    outputs=(TensorSpec(name="scores", dtype="float32", shape=("candidates",)),),
)


@given(st.integers(1, 300), st.integers(1, 9))
def test_powers_of_two_end_with_the_largest(largest: int, smallest: int) -> None:
    sizes = powers_of_two(largest, min(smallest, largest))
    assert sizes[-1] == largest
    assert all(low < high <= 2 * low for low, high in pairwise(sizes))


@given(rows=st.integers(1, 11), tokens=st.integers(2, 77), seed=st.integers(0, 9))
@settings(max_examples=25)
def test_sentences_embed_alike_in_buckets(small_model: Model, rows: int, tokens: int, seed: int) -> None:
    """Padded rows, padded tokens and parts, run by the real graph, against the graph on what was asked."""
    spec = small_model.manifest.graphs.text
    generator = np.random.default_rng(seed)
    ids = generator.integers(1, 49000, (rows, tokens)).astype(np.int32)
    ids[:, 0], ids[np.arange(rows), generator.integers(1, tokens, rows)] = 49406, 49407
    ran: list[tuple[int, ...]] = []

    def run(feed: dict[str, Any], _: Axes, filled: Axes) -> dict[str, Any]:
        out = padded(spec, feed, filled)["input_ids"]
        ran.append(out.shape)
        return {**small_model.backend.text(out)}

    feed = {"input_ids": ids}
    got = run_in_buckets(spec, feed, check_feed("text", spec, feed), SMALL, run)
    want = small_model.backend.text(ids)
    assert {(r, t) for r, t in ran} <= {(r, t) for r in SMALL.rows for t in SMALL.tokens}
    assert len(ran) == -(-rows // SMALL.rows[-1])
    for name, array in want.items():
        assert got[name].shape == array.shape
        assert np.abs(got[name] - array).max() <= 1e-6 * max(1.0, np.abs(array).max()), name


@pytest.mark.parametrize("rows", [1, 3, 4, 7])
def test_clips_embed_alike_in_buckets(small_model: Model, rows: int) -> None:
    spec = small_model.manifest.graphs.video
    generator = np.random.default_rng(rows)
    feed = {
        "frames": generator.integers(0, 256, (rows, 12, 32, 32, 3), dtype=np.uint8),
        "frame_mask": np.arange(12) < generator.integers(1, 13, (rows, 1)),
    }

    def run(part: dict[str, Any], _: Axes, filled: Axes) -> dict[str, Any]:
        full = padded(spec, part, filled)
        assert full["frame_mask"].any(axis=1).all()
        return {**small_model.backend.video(full["frames"], full["frame_mask"])}

    got = run_in_buckets(spec, feed, check_feed("video", spec, feed), SMALL, run)
    for name, array in small_model.backend.video(feed["frames"], feed["frame_mask"]).items():
        assert np.abs(got[name] - array).max() < 1e-6, name


@given(rows=st.integers(1, 9), tokens=st.integers(1, 20))
def test_the_second_stage_scores_alike_in_buckets(rows: int, tokens: int) -> None:
    """Against a naive sum over the words and frames that are there."""
    generator = np.random.default_rng(rows * 100 + tokens)
    feed = {
        "word_embeddings": generator.normal(size=(tokens, 3)).astype(np.float32),
        "word_mask": generator.random(tokens) < 0.7,
        "frame_embeddings": generator.normal(size=(rows, 2, 3)).astype(np.float32),
        "frame_mask": generator.random((rows, 2)) < 0.7,
    }

    def score(given: dict[str, Any]) -> Any:
        words = (given["word_embeddings"] * given["word_mask"][:, None]).sum(0)
        return ((given["frame_embeddings"] * given["frame_mask"][..., None]).sum(1) @ words).astype(np.float32)

    def run(part: dict[str, Any], _: Axes, filled: Axes) -> dict[str, Any]:
        full = padded(RERANK, part, filled)
        assert len(full["word_mask"]) in SMALL.tokens
        assert len(full["frame_mask"]) in SMALL.rows
        return {"scores": score(full)}

    got = run_in_buckets(RERANK, feed, check_feed("rerank", RERANK, feed), SMALL, run)
    assert np.abs(got["scores"] - score(feed)).max() < 1e-4


FAULTS = [
    (
        {"input_ids": np.zeros((2, 4, 1), np.int32)},
        r"has the shape \(2, 4, 1\); the graph takes int32 \[batch, tokens\]",
    ),
    ({"input_ids": np.zeros((0, 4), np.int32)}, r"has the shape \(0, 4\)"),
    ({"input_ids": np.zeros((2, 4), np.int64)}, "is int64; the graph takes int32"),
    ({}, "input input_ids is missing"),
    ({"input_ids": np.zeros((2, 4), np.int32), "x": np.zeros(1)}, "the graph has no input x"),
]


@pytest.mark.parametrize(("feed", "sentence"), FAULTS)
def test_what_a_graph_does_not_take_is_refused(small_model: Model, feed: dict[str, Any], sentence: str) -> None:
    with pytest.raises(BackendError, match=f"text: .*{sentence}"):
        check_feed("text", small_model.manifest.graphs.text, feed)


def test_one_axis_has_one_size() -> None:
    feed = {
        "word_embeddings": np.zeros((4, 3), np.float32),
        "word_mask": np.zeros(5, bool),
        "frame_embeddings": np.zeros((1, 2, 3), np.float32),
        "frame_mask": np.zeros((1, 2), bool),
    }
    with pytest.raises(BackendError, match=r"input word_mask has the shape \(5,\)"):
        check_feed("rerank", RERANK, feed)


def plan(model: Model, graph: str, request: ProfileRequest | None = None) -> ProfilePlan:
    spec = model.manifest.graphs.named()[graph]
    return ProfilePlan.of(graph, spec, [input_shapes(spec, p) for p in graph_profiles(model.manifest, request)[graph]])


def test_a_query_has_a_profile_of_its_own(small_model: Model) -> None:
    text = plan(small_model, "text")
    assert text.profiles == ({"batch": (1, 1), "tokens": (2, 77)}, {"batch": (1, 64), "tokens": (2, 77)})
    assert text.largest == {"batch": 64, "tokens": 77}
    assert text.choose({"batch": 1, "tokens": 16}) == 0
    assert text.choose({"batch": 2, "tokens": 16}) == 1
    with pytest.raises(BackendError, match=r"text: the engine takes batch 1 to 1, .* and batch 65, tokens 9 was asked"):
        text.choose({"batch": 65, "tokens": 9})


@given(
    low=st.integers(1, 5),
    best=st.integers(0, 5),
    more=st.integers(0, 60),
    rows=st.integers(1, 200),
    tokens=st.integers(2, 77),
)
@settings(max_examples=40)
def test_every_part_fits_a_profile(small_model: Model, low: int, best: int, more: int, rows: int, tokens: int) -> None:
    """Whatever the profiles are: what is run after rounding lies in one, and holds what was asked for."""
    video = plan(small_model, "video", ProfileRequest(batch=Range(low, low + best, low + best + more)))
    text = plan(small_model, "text", ProfileRequest(text_batch=Range(low, low + best, low + best + more)))
    for made, axes in ((video, {"batch": rows}), (text, {"batch": rows, "tokens": tokens})):
        most = made.buckets.rows[-1]
        for part in {min(rows, most), rows % most or most}:
            filled = made.buckets.fit({**axes, "batch": part})
            made.choose(filled)
            assert all(filled[axis] >= size for axis, size in {**axes, "batch": part}.items())
            assert all(filled[axis] <= made.largest[axis] for axis in filled)


def test_few_shapes_are_captured(small_model: Model) -> None:
    assert plan(small_model, "video").buckets == Buckets((1, 2, 4, 8, 16, 32), ())
    text = Buckets((1, 2, 4, 8, 16, 32, 64), (2, 16, 32, 48, 64, 77))
    assert plan(small_model, "text").buckets == text
    assert provider_buckets("text", small_model.manifest) == Buckets(text.rows, text.tokens[1:])
    assert largest_axes(small_model.manifest.graphs.text, text) == {"batch": 64, "tokens": 77}
    assert all(high <= 1.5 * low for low, high in pairwise(ROWS[1:]))  # rows are filled up by a half at most


def test_what_providers_are_told(small_model: Model) -> None:
    manifest, folder = small_model.manifest, Path("cache")
    cuda = provider_options("onnx-cuda", "text", manifest, BackendOptions(device=1, memory_limit=1 << 30), folder)
    assert (cuda["device_id"], cuda["arena_extend_strategy"], cuda["use_tf32"]) == ("1", "kSameAsRequested", "0")
    assert (cuda["gpu_mem_limit"], cuda["enable_cuda_graph"]) == (str(1 << 30), "1")
    assert "gpu_mem_limit" not in provider_options("onnx-cuda", "text", manifest, BackendOptions(), folder)
    half = manifest.model_copy(update={"graph_precision": "fp16"})
    trt = provider_options("onnx-tensorrt", "video", half, BackendOptions(cuda_graphs=False), folder)
    assert (trt["trt_fp16_enable"], trt["trt_bf16_enable"], trt["trt_cuda_graph_enable"]) == ("1", "0", "0")
    assert trt["trt_profile_min_shapes"] == "frames:1x12x32x32x3,frame_mask:1x12"
    assert trt["trt_profile_max_shapes"] == "frames:32x12x32x32x3,frame_mask:32x12"
    assert trt["trt_engine_cache_path"] == trt["trt_timing_cache_path"] == "cache"
    rtx = provider_options("onnx-trt-rtx", "text", manifest, BackendOptions(), folder)
    assert (rtx["nv_profile_opt_shapes"], rtx["nv_runtime_cache_path"]) == ("input_ids:16x32", "cache")
    assert "device_id" not in rtx


def test_what_a_provider_builds_belongs_to_graphs_and_gpu(small_model: Model) -> None:
    found = cache_folder(Path("engines"), "onnx-tensorrt", small_model.manifest, ADA)
    assert found.name.startswith(".onnx-tensorrt-")
    assert found.name.endswith("-sm89")
    other = small_model.manifest.model_copy(update={"files": {}})
    assert cache_folder(Path("engines"), "onnx-tensorrt", other, ADA) != found


def test_tf32_is_no_proof_of_fp32(small_model: Model) -> None:
    manifest = small_model.manifest
    assert "set NVIDIA_TF32_OVERRIDE=0" in str(tf32_note("onnx-tensorrt", manifest, {}))
    assert "NvTensorRTRTXExecutionProvider computes fp32" in str(tf32_note("onnx-trt-rtx", manifest, {}))
    assert tf32_note("onnx-tensorrt", manifest, {"NVIDIA_TF32_OVERRIDE": "0"}) is None
    assert tf32_note("onnx-cuda", manifest, {}) is None


def test_nodes_are_counted_by_provider(small_bundle: Path) -> None:
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    path = str(small_bundle / "text.onnx")
    found = read_coverage(onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"]))
    assert found is not None
    operators = [node.op_type for node in onnx.load(path).graph.node]
    products = operators.count("MatMul") + operators.count("Gemm")
    assert found.products["CPUExecutionProvider"] == products > 10
    assert found.nodes["CPUExecutionProvider"] > products
    check_coverage("text", found, "CPUExecutionProvider")
    with pytest.raises(BackendError, match=r"text: CUDAExecutionProvider runs 0% of the graph .*--allow-fallback"):
        check_coverage("text", found, "CUDAExecutionProvider")


COVERED: list[tuple[Coverage | None, str]] = [
    (Coverage({"CUDA": 95, "CPU": 5}, {"CUDA": 10, "CPU": 0}), ""),
    (Coverage({"CUDA": 99, "CPU": 1}, {"CUDA": 10, "CPU": 1}), r"runs 99% .* 1 matrix products on CPU"),
    (Coverage({"CUDA": 79, "CPU": 21}, {"CUDA": 10}), r"runs 79% .*CUDA 79 of 100 nodes, CPU 21 of 100"),
    (Coverage({}, {}), "runs 0%"),
    (None, "cannot tell which provider runs which node; install onnxruntime-gpu 1.24 or later, or .*--allow-fallback"),
]


@pytest.mark.parametrize(("coverage", "sentence"), COVERED)
def test_too_little_is_refused(coverage: Coverage | None, sentence: str) -> None:
    if not sentence:
        check_coverage("text", coverage, "CUDA")
        return
    with pytest.raises(BackendError, match=sentence):
        check_coverage("text", coverage, "CUDA")
