"""int8: symmetric, calibrated on real inputs, with fewer passes and near fp32; and what calibrates it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from vtr_export.graph.fold import fold_text_tower
from vtr_export.graph.trace import trace_text, trace_video
from vtr_export.model.checkpoint import load_checkpoint
from vtr_export.precision.calibration import MAX_SAMPLES, read_calibration, stress_inputs
from vtr_export.precision.execute import TypedGraph
from vtr_export.precision.quantize import MIN_SAMPLES, QuantizationReport, count_int8_products, quantize_graph
from vtr_export.tokenizer import write_tokenizer
from vtr_runtime.errors import UsageError
from vtr_runtime.manifest import FrameSpec, TextSpec
from vtr_runtime.text import Tokenizer


@pytest.fixture(scope="module")
def graphs(small_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both graphs in fp32."""
    folder, model = tmp_path_factory.mktemp("fp32"), load_checkpoint(small_checkpoint).model
    trace_video(model.video, model.config, folder / "video.onnx", opset=18)
    trace_text(fold_text_tower(model.text), model.config, folder / "text.onnx", opset=18)
    return folder


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    file, spec = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json", TextSpec()
    write_tokenizer(file, context_length=spec.context_length, cleaning=spec.cleaning)
    return Tokenizer.from_file(file, spec)


@pytest.fixture(scope="module")
def golden(tokenizer: Tokenizer) -> Any:
    return read_calibration(None, FrameSpec(size=32), tokenizer)


@pytest.fixture(scope="module")
def quantised(
    graphs: Path, golden: Any, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[Path, QuantizationReport]]:
    folder = tmp_path_factory.mktemp("int8")
    feeds = {"video": golden.video, "text": golden.text}
    return {
        part: (
            folder / f"{part}.onnx",
            quantize_graph(graphs / f"{part}.onnx", folder / f"{part}.onnx", feeds[part][:MIN_SAMPLES]),
        )
        for part in feeds
    }


def test_the_golden_clips_and_sentences_are_enough(golden: Any) -> None:
    for feeds in (golden.video, golden.text):
        assert len(feeds) >= MIN_SAMPLES
        assert len({b"".join(array.tobytes() for array in feed.values()) for feed in feeds}) >= MIN_SAMPLES


def test_products_are_int8_with_zero_points_of_zero(quantised: dict[str, tuple[Path, QuantizationReport]]) -> None:
    for part, (path, report) in quantised.items():
        graph = onnx.load(path).graph
        assert count_int8_products(onnx.load(path)) == report.products
        assert report.products >= {"video": 20, "text": 8}[part]
        assert f"int8: {report.products} of" in report.line()
        weights = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
        per_channel = 0
        for node in graph.node:
            if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
                zero = weights[node.input[2]]
                assert zero.dtype == np.int8
                assert not zero.any()
                per_channel += zero.size > 1
        assert per_channel == report.products
        dequantised = {out for node in graph.node if node.op_type == "DequantizeLinear" for out in node.output}
        readers = {node.op_type for node in graph.node if set(node.input) & dequantised}
        assert readers <= {"Conv", "Gemm", "MatMul", "Transpose"}


def test_the_final_projection_the_sampler_and_attention_stay_in_float(
    quantised: dict[str, tuple[Path, QuantizationReport]],
) -> None:
    graph = onnx.load(quantised["text"][0]).graph
    dequantised = {out for node in graph.node if node.op_type == "DequantizeLinear" for out in node.output}
    names = {value for node in graph.node for value in node.input if node.op_type in ("MatMul", "Gemm")}
    assert {"text.backbone.text_projection", "text.alignment.final.weight"} <= names
    assert not any("alignment" in name for name in dequantised)
    makers = {out: node.op_type for node in graph.node for out in node.output}
    softmaxes = [node for node in graph.node if any(makers.get(value) == "Softmax" for value in node.input)]
    assert {node.op_type for node in softmaxes} == {"MatMul"}
    assert not any(set(node.input) & dequantised for node in softmaxes)


def test_int8_is_near_fp32_and_the_executor_agrees_with_onnx_runtime(
    graphs: Path, golden: Any, quantised: dict[str, tuple[Path, QuantizationReport]]
) -> None:
    for part, feed in (("video", golden.video[-1]), ("text", golden.text[-1])):
        sessions = [
            onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
            for path in (graphs / f"{part}.onnx", quantised[part][0])
        ]
        want, got = (session.run(["embedding"], feed)[0] for session in sessions)
        assert 0.98 < float((want * got).sum()) < 1 - 1e-6
        own = TypedGraph(quantised[part][0])(feed)["embedding"]
        assert float((own * got).sum()) > 0.999  # a number half way between two steps may go either way


def test_too_few_inputs_are_refused(graphs: Path, golden: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"int8 needs {MIN_SAMPLES} inputs to calibrate on, but 3 were found"):
        quantize_graph(graphs / "text.onnx", tmp_path / "text.onnx", golden.text[:3])
    assert list(tmp_path.iterdir()) == []


def test_calibration_takes_the_training_split_of_a_data_file(clips: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    clip = str((clips / "decord_video_180.mov").resolve())
    lines = [{"video": clip, "captions": [f"dog {i}", "a cat"], "split": "train" if i else "test"} for i in range(3)]
    (tmp_path / "data.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    found = read_calibration(tmp_path, FrameSpec(size=32), tokenizer)
    assert (len(found.video), len(found.text)) == (2, 3)  # two clips; dog 1, dog 2, a cat
    want = tokenizer.encode(["a cat"])
    assert any(np.array_equal(feed["input_ids"][0], want[0, : feed["input_ids"].shape[1]]) for feed in found.text)
    assert found.video[0]["frames"].shape == (1, 12, 32, 32, 3)
    assert len(lines) < MAX_SAMPLES
    (tmp_path / "MSRVTT_JSFUSION_test.csv").write_text(
        "key,vid_key,video_id,sentence\n0,0,decord_video_180,a dog\n1,1,x,a cat\n"
    )
    spec = f"msrvtt-1ka:{tmp_path}?videos={clips}&subset=yes"  # of two clips, without a training split
    found = read_calibration(spec, FrameSpec(size=32), tokenizer)
    assert (len(found.video), len(found.text)) == (1, 2)


def test_stress_inputs_hold_what_they_should() -> None:
    inputs = stress_inputs(FrameSpec(count=4, size=16), TextSpec())
    masks = {tuple(feed["frame_mask"][0].tolist()) for feed in inputs.video}
    assert masks == {
        (True, False, False, False),
        (True, True, False, False),
        (True, True, True, False),
        (True, True, True, True),
        (False, False, False, True),
        (True, True, False, True),
    }
    assert {int(picture.max()) for picture in inputs.video[0]["frames"]} == {0, 255}
    rows = [row for feed in inputs.text for row in feed["input_ids"]]
    ends = {int((row == 49407).argmax()) for row in rows}
    assert ends == set(range(1, 77))
    assert {feed["input_ids"].shape[1] for feed in inputs.text} == {2, 3, 16, 77}
    assert all(row[0] == 49406 and (row == 49407).sum() == 1 for row in rows)
