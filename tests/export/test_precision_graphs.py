"""Lowered graphs: types, casts, islands and weights as declared; finite on everything; and near fp32."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, Literal

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from vtr_export.graph.fold import fold_text_tower, fold_video_tower
from vtr_export.graph.prune import prune_text_tower, prune_video_tower
from vtr_export.graph.trace import trace_rerank, trace_text, trace_video
from vtr_export.model import (
    AlignmentConfig,
    BackboneConfig,
    ModelConfig,
    RerankConfig,
    RetrievalModel,
    TemporalConfig,
    redraw_zero_parameters,
)
from vtr_export.model.checkpoint import load_checkpoint
from vtr_export.precision.calibration import stress_inputs
from vtr_export.precision.execute import TypedGraph
from vtr_export.precision.islands import DEFAULT_RULES, Islands
from vtr_export.precision.lower import lower_precision
from vtr_runtime.errors import UsageError
from vtr_runtime.manifest import FrameSpec, TextSpec
from vtr_runtime.precision import COSINE_LOSS

Low = Literal["fp16", "bf16"]
PRECISIONS: tuple[Low, ...] = ("fp16", "bf16")
TYPES = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
PARTS = ("video", "text")
BACKBONE = {
    "embed_dim": 64,
    "vision_cfg": {"image_size": 16, "patch_size": 8, "layers": 2, "width": 32, "head_width": 16},
    "text_cfg": {"width": 32, "heads": 2, "layers": 2},
}


def build(rerank: str = "token-wise") -> Any:
    temporal = TemporalConfig(kind="mstdt", heads=2, position_init="normal", init="random")
    alignment = AlignmentConfig(kind="dits", steps=3, blocks=2, heads=2)
    backbone = BackboneConfig.from_open_clip(BACKBONE)
    torch.manual_seed(0)
    config = ModelConfig.from_backbone(
        backbone,
        temporal=temporal,
        alignment=alignment,
        rerank=RerankConfig(kind=rerank),  # type: ignore[arg-type]
    )
    model = RetrievalModel(config).eval()
    redraw_zero_parameters(model, 0)
    return model


@pytest.fixture(scope="module")
def graphs(small_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders with fp32 graphs: the small ResNet with inner stages, and a ViT, pruned, at two opsets."""
    small, model, made = load_checkpoint(small_checkpoint).model, build(), {"resnet": tmp_path_factory.mktemp("resnet")}
    trace_video(small.video, small.config, made["resnet"] / "video.onnx", opset=18, debug_outputs=True)
    folded = fold_text_tower(small.text)
    trace_text(folded, small.config, made["resnet"] / "text.onnx", opset=18, debug_outputs=True)
    video, text = prune_video_tower(fold_video_tower(model.video)), fold_text_tower(model.text)
    for opset in (18, 23):
        folder = made[f"vit-{opset}"] = tmp_path_factory.mktemp("graphs")
        trace_video(video, model.config, folder / "video.onnx", opset=opset)
        pruned = prune_text_tower(text, words=False)
        trace_text(pruned, model.config, folder / "text.onnx", opset=opset)
    return made


@pytest.fixture(scope="module")
def lowered(graphs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    made = {}
    for name, folder in graphs.items():
        for precision in PRECISIONS:
            target = made[name, precision] = tmp_path_factory.mktemp("lowered")
            for part in PARTS:
                lower_precision(folder / f"{part}.onnx", target / f"{part}.onnx", precision=precision)
    return made


CASES = [(name, precision) for name in ("resnet", "vit-18", "vit-23") for precision in PRECISIONS]
every_case = pytest.mark.parametrize(("name", "precision"), CASES)


def stress(path: Path) -> list[dict[str, Any]]:
    """stress_inputs for a graph, whose size its inputs tell."""
    [first, *_] = onnx.load(path).graph.input
    shape = [dim.dim_value for dim in first.type.tensor_type.shape.dim]
    frames = FrameSpec(count=shape[1], size=shape[2]) if path.stem == "video" else FrameSpec(count=1, size=16)
    inputs = stress_inputs(frames, TextSpec())
    return inputs.video if path.stem == "video" else inputs.text


def element_types(model: onnx.ModelProto) -> dict[str, int]:
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    known = {v.name: v.type.tensor_type.elem_type for v in (*graph.value_info, *graph.input, *graph.output)}
    return known | {weight.name: weight.data_type for weight in graph.initializer}


@pytest.mark.parametrize("name", ["resnet", "vit-18", "vit-23"])
@pytest.mark.parametrize("part", PARTS)
def test_in_fp32_the_executor_gives_what_onnx_runtime_gives(name: str, part: str, graphs: dict[str, Path]) -> None:
    path = graphs[name] / f"{part}.onnx"
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    graph = TypedGraph(path)
    names = [output.name for output in session.get_outputs()]
    for feed in stress(path)[-3:]:
        got = graph(feed)
        for output, want in zip(names, session.run(names, feed), strict=True):
            assert np.abs(got[output] - want).max() <= 1e-5 * max(1.0, float(np.abs(want).max())), output


@pytest.mark.parametrize("kind", ["token-wise", "x-pool"])
def test_the_second_stage_runs_and_is_lowered(kind: str, tmp_path: Path) -> None:
    model = build(kind)
    path = tmp_path / "rerank.onnx"
    traced = trace_rerank(model.rerank, model.config, path, opset=18)
    rng = np.random.default_rng(0)

    def unit(*shape: int) -> Any:
        x = rng.standard_normal(shape).astype(np.float32)
        return x / np.linalg.norm(x, axis=-1, keepdims=True)

    count = model.config.frames.count
    every = {
        "embedding": unit(64),
        "word_embeddings": unit(6, 64),
        "word_mask": np.arange(6) < 4,
        "word_weights": np.ones(6, np.float32),
        "frame_embeddings": unit(9, count, 64),
        "frame_mask": np.arange(count) < rng.integers(1, count + 1, (9, 1)),
    }
    feed = {name: every[name] for name in traced.input_names}
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    [want] = session.run(["scores"], feed)
    assert np.abs(TypedGraph(path)(feed)["scores"] - want).max() < 1e-5
    for precision, limit in (("fp16", 2e-3), ("bf16", 2e-2)):
        (tmp_path / precision).mkdir()
        lower_precision(path, tmp_path / precision / path.name, precision=precision)  # type: ignore[arg-type]
        assert np.abs(TypedGraph(tmp_path / precision / path.name)(feed)["scores"] - want).max() < limit


@every_case
def test_the_embedding_stays_near_fp32(
    name: str, precision: Low, graphs: dict[str, Path], lowered: dict[tuple[str, str], Path]
) -> None:
    for part in PARTS:
        source = graphs[name] / f"{part}.onnx"
        session = onnxruntime.InferenceSession(str(source), providers=["CPUExecutionProvider"])
        graph = TypedGraph(lowered[name, precision] / f"{part}.onnx")
        for feed in stress(source)[-2:]:
            [want] = session.run(["embedding"], feed)
            cosine = (want.astype(np.float64) * graph(feed)["embedding"]).sum(axis=1)
            assert 1 - COSINE_LOSS[precision] <= cosine.min() < 1 - 1e-9, "so near that nothing was lowered"


@every_case
def test_every_reduced_graph_is_finite_on_everything(
    name: str, precision: Low, lowered: dict[tuple[str, str], Path]
) -> None:
    for part in PARTS:
        path = lowered[name, precision] / f"{part}.onnx"
        graph = TypedGraph(path)
        for feed in stress(path):
            for output, array in graph(feed).items():
                assert np.isfinite(array).all(), (output, {key: value.shape for key, value in feed.items()})


def test_without_islands_a_black_clip_is_not_finite(graphs: dict[str, Path], tmp_path: Path) -> None:
    """So that the test above could fail: 1e-12, below which no norm may fall, is zero in fp16."""
    lower_precision(graphs["vit-18"] / "video.onnx", tmp_path / "video.onnx", precision="fp16", islands=Islands(()))
    graph = TypedGraph(tmp_path / "video.onnx")
    assert not all(np.isfinite(graph(feed)["embedding"]).all() for feed in stress(tmp_path / "video.onnx"))


@every_case
def test_floats_are_low_outside_islands_and_casts_stand_on_borders_only(
    name: str, precision: Low, lowered: dict[tuple[str, str], Path]
) -> None:
    low = TYPES[precision]
    for part in PARTS:
        path = lowered[name, precision] / f"{part}.onnx"
        onnx.checker.check_model(str(path), full_check=True)
        model = onnx.load(path)
        kinds = element_types(model)
        makers = {out: node for node in model.graph.node for out in node.output}
        casts = [node for node in model.graph.node if node.op_type == "Cast"]
        pairs = [(node.input[0], kinds[node.output[0]]) for node in casts]
        assert max(Counter(pairs).values()) == 1, "a value is cast twice"
        for node in casts:
            before = makers.get(node.input[0])
            assert kinds[node.input[0]] != kinds[node.output[0]], "a cast to the same type"
            assert before is None or before.op_type != "Cast" or kinds[before.input[0]] not in (1, low), "casts cancel"
        for node in model.graph.node:
            found = {kinds[value] for value in (*node.input, *node.output) if value} & {1, low}
            if node.op_type in ("LayerNormalization", "Softmax", "ReduceL2", "ReduceSum", "ReduceMean"):
                assert found == {1}, node.name
            elif node.op_type == "Attention":
                assert found == {low}
                assert {a.name: a.i for a in node.attribute}["softmax_precision"] == 1
            elif node.op_type != "Cast":
                assert len(found) <= 1, f"{node.op_type} mixes types"
        products = Counter(kinds[n.output[0]] for n in model.graph.node if n.op_type in ("MatMul", "Gemm"))
        assert products[1] <= 2, "more than the final projection in fp32"
        assert products[low] > 10


@every_case
def test_inputs_outputs_and_names_are_kept(
    name: str, precision: Low, graphs: dict[str, Path], lowered: dict[tuple[str, str], Path]
) -> None:
    for part in PARTS:
        before = onnx.load(graphs[name] / f"{part}.onnx").graph
        after = onnx.load(lowered[name, precision] / f"{part}.onnx").graph
        assert [v.SerializeToString() for v in before.input] == [v.SerializeToString() for v in after.input]
        for a, b in zip(before.output, after.output, strict=True):
            assert (a.name, a.type.tensor_type.elem_type) == (b.name, b.type.tensor_type.elem_type)
        modules = {node.metadata_props[0].value for node in after.node}
        assert {key.key for node in after.node for key in node.metadata_props} == {"module"}
        assert all(module.split(".")[0] == part for module in modules)
        wanted = "video.temporal" if part == "video" else "text.alignment.network.blocks.1.mlp.c_fc"
        assert any(module.startswith(wanted) for module in modules), sorted(modules)


def test_modules_are_named_as_in_the_state_dict(lowered: dict[tuple[str, str], Path]) -> None:
    """Every module that owns a matrix and is in the graph is one of the model's."""
    names = dict(build().named_modules())
    for part in PARTS:
        for node in onnx.load(lowered["vit-18", "fp16"] / f"{part}.onnx").graph.node:
            module = node.metadata_props[0].value
            pruned = (
                ".attn.query" in module or ".attn.key_value" in module
            )  # halves of one matrix, so named by the pass
            assert module in names or pruned, module


@pytest.mark.parametrize("precision", PRECISIONS)
def test_weights_are_stored_once(precision: Low, graphs: dict[str, Path], lowered: dict[tuple[str, str], Path]) -> None:
    before = onnx.load(graphs["resnet"] / "text.onnx").graph.initializer
    numbers = sum(int(np.prod(i.dims)) for i in before)
    path = lowered["resnet", precision] / "text.onnx"
    assert path.stat().st_size < 1.05 * 2 * numbers + 128 * 1024  # nodes of an unrolled sampler
    big = [i.raw_data for i in onnx.load(path).graph.initializer if len(i.raw_data) > 4096]
    assert len(big) == len(set(big))


def test_an_opset_without_the_type_keeps_fp32_and_says_so(graphs: dict[str, Path], tmp_path: Path) -> None:
    """ONNX gives Conv bf16 from opset 22 on."""
    report = lower_precision(graphs["resnet"] / "video.onnx", tmp_path / "video.onnx", precision="bf16")
    assert any(
        line.startswith("in fp32 because the opset has no such type for Conv: video.b") for line in report.lines()
    )
    model = onnx.load(tmp_path / "video.onnx")
    kinds = element_types(model)
    assert {kinds[node.output[0]] for node in model.graph.node if node.op_type == "Conv"} == {TensorProto.FLOAT}


def test_a_lowered_graph_loads_in_onnx_runtime(lowered: dict[tuple[str, str], Path]) -> None:
    for part in PARTS:
        onnxruntime.InferenceSession(
            str(lowered["vit-18", "fp16"] / f"{part}.onnx"), providers=["CPUExecutionProvider"]
        )
        with pytest.raises(Exception, match="NOT_IMPLEMENTED"):  # no bf16 kernels; the types themselves are accepted
            onnxruntime.InferenceSession(
                str(lowered["vit-18", "bf16"] / f"{part}.onnx"), providers=["CPUExecutionProvider"]
            )


def one_node(weight: Any, operator: str = "Add") -> onnx.ModelProto:
    graph = helper.make_graph(
        [helper.make_node(operator, ["x", "w"], ["embedding"], name="n")],
        "g",
        [helper.make_tensor_value_info("x", 1, ["batch", len(weight)])],
        [helper.make_tensor_value_info("embedding", 1, ["batch", len(weight)])],
        [numpy_helper.from_array(np.asarray(weight, np.float32), "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def test_constants_beyond_the_type_are_clamped_and_told(tmp_path: Path) -> None:
    onnx.save(one_node([1e6, -np.inf, -1e4, 1e-12, 0.0]), tmp_path / "head.onnx")
    for precision, clamped, flushed in (("fp16", 2, 1), ("bf16", 1, 0)):
        target = tmp_path / precision
        report = lower_precision(tmp_path / "head.onnx", target, precision=precision)  # type: ignore[arg-type]
        assert (report.clamped, report.flushed) == ({"w": clamped}, {"w": flushed} if flushed else {})
        assert f"{clamped} constants became the largest finite number" in " ".join(report.lines())
        [weight] = onnx.load(target).graph.initializer
        numbers = numpy_helper.to_array(weight).astype(np.float64)
        largest = float(ml_dtypes.finfo(ml_dtypes.bfloat16 if precision == "bf16" else np.float16).max)
        assert numbers[1] == -largest
        assert np.isfinite(numbers).all()


def test_weights_can_stand_beside_the_graph(graphs: dict[str, Path], tmp_path: Path) -> None:
    lower_precision(graphs["resnet"] / "text.onnx", tmp_path / "text.onnx", precision="fp16", external=True)
    assert (tmp_path / "text.onnx").stat().st_size < 500_000 < (tmp_path / "text.onnx.data").stat().st_size
    [feed, *_] = stress(tmp_path / "text.onnx")
    assert np.isfinite(TypedGraph(tmp_path / "text.onnx")(feed)["embedding"]).all()


def test_what_cannot_be_lowered_is_refused(tmp_path: Path) -> None:
    onnx.save(one_node([1.0, np.nan]), tmp_path / "head.onnx")
    with pytest.raises(UsageError, match="w holds NaN"):
        lower_precision(tmp_path / "head.onnx", tmp_path / "out", precision="fp16")
    lstm = helper.make_graph(
        [helper.make_node("LSTM", ["x", "w", "r"], ["embedding"], hidden_size=1)],
        "g",
        [helper.make_tensor_value_info(name, 1, None) for name in ("x", "w", "r")],
        [helper.make_tensor_value_info("embedding", 1, None)],
    )
    onnx.save(helper.make_model(lstm, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), tmp_path / "l.onnx")
    with pytest.raises(UsageError, match=r"LSTM cannot be lowered to bf16: .* export this model in fp32"):
        lower_precision(tmp_path / "l.onnx", tmp_path / "out", precision="bf16")


@pytest.mark.parametrize(
    ("rule", "operator", "module", "kept"),
    [
        ("video.backbone.ln_pre", "Add", "video.backbone.ln_pre", True),
        ("video.backbone.ln_pre", "Add", "video.backbone.ln_pre.inner", True),
        ("video.backbone.resblocks.1", "Add", "video.backbone.resblocks.11", False),
        ("op:Softmax", "Softmax", "anywhere", True),
        ("op:Softmax", "Add", "anywhere", False),
        ("op:MatMul@*.backbone", "MatMul", "text.backbone", True),
        ("op:MatMul@*.backbone", "MatMul", "text.backbone.ln_final", False),
        ("op:*@text", "Sub", "text", True),
    ],
)
def test_rules(rule: str, operator: str, module: str, kept: bool) -> None:
    assert (Islands((rule,)).rule_for(operator, module) == rule) is kept


def test_islands_are_stored_and_read_back(tmp_path: Path) -> None:
    islands = Islands().also(["video.backbone.ln_pre", DEFAULT_RULES[0]])
    islands.save(tmp_path / "islands.json")
    assert Islands.load(tmp_path / "islands.json") == islands
    assert islands.rules == (*DEFAULT_RULES, "video.backbone.ln_pre")
    (tmp_path / "bad.json").write_text('{"a": 1}')
    for path, words in ((tmp_path / "bad.json", "is no list of islands"), (tmp_path / "none", "cannot be read")):
        with pytest.raises(UsageError, match=words):
            Islands.load(path)
    with pytest.raises(UsageError, match="'op:' is no island"):
        Islands(("op:",))
