"""The fusion report: what a tower calls is found in its graph, and a pattern that is broken is missed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import pytest
import torch
from onnx import NodeProto, TensorProto, helper, numpy_helper
from torch import nn

from vtr_export.graph.fold import fold_text_tower
from vtr_export.graph.fusion import Fusion, expected_operators, find_in_openvino, find_operators
from vtr_export.graph.modules import RerankGraph
from vtr_export.graph.prune import prune_text_tower, prune_video_tower
from vtr_export.graph.trace import trace_text, trace_video
from vtr_export.model import (
    AlignmentConfig,
    BackboneConfig,
    ModelConfig,
    RerankConfig,
    RetrievalModel,
    TemporalConfig,
    redraw_zero_parameters,
)
from vtr_export.model.attention import Attention, QuickGELU
from vtr_runtime.errors import GateError
from vtr_runtime.openvino import compile_graph, operators

LAYERS = 2
# By hand: a block has one attention, two LayerNorms and one activation; before and behind the picture's blocks stands
# a LayerNorm each, behind the sentence's one.
PICTURES = {"attention": LAYERS, "layer_norm": 2 * LAYERS + 2}
SENTENCES = {"attention": LAYERS, "layer_norm": 2 * LAYERS + 1}


def build(*, quick: bool, heads: bool = False, rerank: str = "none") -> RetrievalModel:
    backbone = {
        "embed_dim": 64,
        "vision_cfg": {"image_size": 32, "patch_size": 8, "layers": LAYERS, "width": 64, "head_width": 32},
        "text_cfg": {"width": 64, "heads": 2, "layers": LAYERS},
        "quick_gelu": quick,
    }
    temporal = TemporalConfig(kind="mstdt", heads=2, position_init="normal", init="random") if heads else None
    alignment = AlignmentConfig(kind="dits", steps=2, blocks=1, heads=2) if heads else None
    torch.manual_seed(0)
    config = ModelConfig.from_backbone(
        BackboneConfig.from_open_clip(backbone),
        temporal=temporal or TemporalConfig(),
        alignment=alignment or AlignmentConfig(),
        rerank=RerankConfig(kind=rerank),  # type: ignore[arg-type]
    )
    model = RetrievalModel(config).eval()
    redraw_zero_parameters(model, 0)
    return model


CLIP = (torch.zeros(1, 12, 32, 32, 3, dtype=torch.uint8), torch.ones(1, 12, dtype=torch.bool))
IDS = torch.tensor([[49406, 320, 49407]], dtype=torch.int32)


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, dict[str, int]]]:
    """Traced towers, each with what its model calls."""
    folder = tmp_path_factory.mktemp("fusion")
    plain, quick, heads = build(quick=False), build(quick=True), build(quick=False, heads=True)
    made = {}
    for name, model, opset in (("gelu-18", plain, 18), ("gelu-20", plain, 20), ("quick-23", quick, 23)):
        path = folder / f"{name}.onnx"
        trace_video(prune_video_tower(model.video), model.config, path, opset=opset)
        made[name] = (path, expected_operators(model.video, *CLIP))
    path = folder / "quick-20.onnx"
    trace_text(prune_text_tower(quick.text, words=False), quick.config, path, opset=20)
    made["quick-20"] = (path, expected_operators(quick.text, IDS))
    path = folder / "heads-20.onnx"
    trace_text(prune_text_tower(fold_text_tower(heads.text), words=False), heads.config, path, opset=20)
    made["heads-20"] = (path, expected_operators(heads.text, IDS))
    return made


@pytest.mark.parametrize(
    ("name", "want"),
    [
        ("gelu-18", {**PICTURES, "gelu": LAYERS, "quick_gelu": 0}),
        ("gelu-20", {**PICTURES, "gelu": LAYERS, "quick_gelu": 0}),
        ("quick-23", {**PICTURES, "gelu": 0, "quick_gelu": LAYERS}),
        ("quick-20", {**SENTENCES, "gelu": 0, "quick_gelu": LAYERS}),
        # A step of the sampler: three LayerNorms, one GELU, and attention over one token, which is none.
        ("heads-20", {**SENTENCES, "layer_norm": SENTENCES["layer_norm"] + 6, "gelu": LAYERS + 2, "quick_gelu": 0}),
    ],
)
def test_what_a_tower_calls_is_what_its_graph_holds(
    graphs: dict[str, tuple[Path, dict[str, int]]], name: str, want: dict[str, int]
) -> None:
    path, expected = graphs[name]
    assert expected == want
    assert find_operators(path) == want
    Fusion(name, expected, find_operators(path)).check()


@pytest.mark.parametrize("variant", ["A", "C"])
def test_the_models_calls_are_those_of_its_modules(variant: Literal["A", "C"]) -> None:
    """Against forward hooks; variant C calls one stack several times."""
    temporal = TemporalConfig(kind="mstdt", variant=variant, heads=2, position_init="normal", init="random")
    config = build(quick=True).config.model_copy(update={"temporal": temporal})
    video = RetrievalModel(config).eval().video
    seen: Counter[str] = Counter()
    kinds = {Attention: "attention", nn.LayerNorm: "layer_norm", nn.GELU: "gelu", QuickGELU: "quick_gelu"}
    for part in video.modules():
        if type(part) in kinds:
            part.register_forward_hook(lambda part, *_: seen.update([kinds[type(part)]]))
    video(*CLIP)
    want = dict(seen)
    assert min(seen["attention"], seen["layer_norm"], seen["quick_gelu"]) > LAYERS
    assert {kind: count for kind, count in expected_operators(video, *CLIP).items() if count} == want


def test_the_attention_of_a_second_stage_is_not_asked_for() -> None:
    model = build(quick=False, rerank="x-pool")
    assert model.rerank is not None
    embedding, frames = torch.randn(64), torch.randn(3, 12, 64)
    given = (embedding, frames, torch.ones(3, 12, dtype=torch.bool))
    counts = expected_operators(RerankGraph(model.rerank, model.config.rerank), *given)
    # Of the text, the frames, the pooled frames twice.
    assert counts == {"attention": 0, "layer_norm": 4, "gelu": 0, "quick_gelu": 0}


Change = Callable[[onnx.GraphProto], None]


def changed(path: Path, folder: Path, change: Change) -> Path:
    model = onnx.load(path)
    change(model.graph)
    onnx.save(model, folder / path.name)
    return folder / path.name


def first(graph: onnx.GraphProto, kind: str) -> tuple[int, NodeProto]:
    return next((place, node) for place, node in enumerate(graph.node) if node.op_type == kind)


def insert(graph: onnx.GraphProto, place: int, *nodes: NodeProto) -> None:
    for node in reversed(nodes):
        graph.node.insert(place, node)


def take_layer_norm_apart(graph: onnx.GraphProto) -> None:
    place, node = first(graph, "LayerNormalization")
    (x, weight, bias), (y,) = node.input, node.output
    graph.initializer.append(numpy_helper.from_array(np.array([-1], np.int64), "last"))
    graph.initializer.append(numpy_helper.from_array(np.array(1e-5, np.float32), "epsilon"))
    graph.node.remove(node)
    insert(
        graph,
        place,
        helper.make_node("ReduceMean", [x, "last"], ["mean"]),
        helper.make_node("Sub", [x, "mean"], ["centred"]),
        helper.make_node("Mul", ["centred", "centred"], ["squares"]),
        helper.make_node("ReduceMean", ["squares", "last"], ["variance"]),
        helper.make_node("Add", ["variance", "epsilon"], ["above_zero"]),
        helper.make_node("Sqrt", ["above_zero"], ["deviation"]),
        helper.make_node("Div", ["centred", "deviation"], ["normed"]),
        helper.make_node("Mul", ["normed", weight], ["weighted"]),
        helper.make_node("Add", ["weighted", bias], [y]),
    )


def hide_scores_by_where(graph: onnx.GraphProto) -> None:
    place, node = first(graph, "Softmax")
    graph.initializer.append(numpy_helper.from_array(np.array(True), "shown"))
    graph.initializer.append(numpy_helper.from_array(np.array(-1e4, np.float32), "hidden"))
    insert(graph, place, helper.make_node("Where", ["shown", node.input[0], "hidden"], ["chosen"]))
    node.input[0] = "chosen"


def scale_scores(graph: onnx.GraphProto) -> None:
    place, node = first(graph, "Softmax")
    graph.initializer.append(numpy_helper.from_array(np.array(0.5, np.float32), "half"))
    insert(graph, place, helper.make_node("Mul", [node.input[0], "half"], ["scaled"]))
    node.input[0] = "scaled"


def cast_scores(graph: onnx.GraphProto) -> None:
    place, node = first(graph, "Softmax")
    to = [TensorProto.FLOAT16, TensorProto.FLOAT]
    insert(
        graph,
        place,
        helper.make_node("Cast", [node.input[0]], ["down"], to=to[0]),
        helper.make_node("Cast", ["down"], ["up"], to=to[1]),
    )
    node.input[0] = "up"


def cast_gate(graph: onnx.GraphProto) -> None:
    place, node = first(graph, "Sigmoid")
    insert(
        graph,
        place,
        helper.make_node("Cast", [node.input[0]], ["down"], to=TensorProto.FLOAT16),
        helper.make_node("Cast", ["down"], ["up"], to=TensorProto.FLOAT),
    )
    node.input[0] = "up"


def rename(kind: str, to: str) -> Change:
    def change(graph: onnx.GraphProto) -> None:
        first(graph, kind)[1].op_type = to

    return change


def forget_the_factor(graph: onnx.GraphProto) -> None:
    """QuickGELU becomes SiLU."""
    for tensor in [*graph.initializer, *(a.t for node in graph.node for a in node.attribute if a.name == "value")]:
        value = numpy_helper.to_array(tensor)
        if value.ndim == 0 and abs(float(value) - 1.702) < 1e-3:
            tensor.CopyFrom(numpy_helper.from_array(np.array(1.0, value.dtype), tensor.name))


@pytest.mark.parametrize(
    ("name", "change", "kind", "lost"),
    [
        ("gelu-20", take_layer_norm_apart, "layer_norm", 1),
        ("gelu-18", hide_scores_by_where, "attention", 1),
        ("quick-20", hide_scores_by_where, "attention", 1),  # behind an added mask
        ("gelu-20", scale_scores, "attention", 1),
        ("quick-23", rename("Attention", "Relu"), "attention", 1),
        ("gelu-20", rename("Gelu", "Relu"), "gelu", 1),
        ("gelu-18", rename("Erf", "Sin"), "gelu", 1),
        ("quick-20", rename("Sigmoid", "HardSigmoid"), "quick_gelu", 1),
        ("quick-20", forget_the_factor, "quick_gelu", LAYERS),
    ],
)
def test_a_broken_pattern_is_found(
    graphs: dict[str, tuple[Path, dict[str, int]]], tmp_path: Path, name: str, change: Change, kind: str, lost: int
) -> None:
    path, expected = graphs[name]
    found = find_operators(changed(path, tmp_path, change))
    assert found == {**expected, kind: expected[kind] - lost}
    with pytest.raises(GateError) as caught:
        Fusion("video.onnx", expected, found).check()
    words = f"video.onnx holds {expected[kind] - lost} of {expected[kind]} {kind} in one piece"
    assert str(caught.value).startswith(words)


@pytest.mark.parametrize(
    ("name", "change"), [("gelu-20", cast_scores), ("quick-20", cast_scores), ("quick-20", cast_gate)]
)
def test_casts_inside_a_pattern_are_seen_through(
    graphs: dict[str, tuple[Path, dict[str, int]]], tmp_path: Path, name: str, change: Change
) -> None:
    path, expected = graphs[name]
    assert find_operators(changed(path, tmp_path, change)) == expected


def test_openvino_runs_each_attention_and_layer_norm_as_one(graphs: dict[str, tuple[Path, dict[str, int]]]) -> None:
    for name in ("gelu-20", "quick-20"):
        path, expected = graphs[name]
        found = find_in_openvino(name, operators(compile_graph(path, "fp32", threads=1)), expected)
        found.check()
        assert set(found.expected) == {"attention", "layer_norm"}


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        ({"MVN": 6, "Subgraph": 1}, "OpenVINO's video holds 1 of 2 attention"),
        ({"MVN": 5, "Subgraph": 1, "ScaledDotProductAttention": 1}, "OpenVINO's video holds 5 of 6 layer_norm"),
        ({}, "OpenVINO's video holds 0 of 2 attention"),
    ],
)
def test_openvino_has_a_floor(layers: dict[str, int], words: str) -> None:
    with pytest.raises(GateError) as caught:
        find_in_openvino("OpenVINO's video", layers, {**PICTURES, "gelu": 2, "quick_gelu": 0}).check()
    assert str(caught.value).startswith(words)


def test_the_summary_names_what_is_expected() -> None:
    fusion = Fusion("x", {"attention": 2, "layer_norm": 6, "gelu": 0}, {"attention": 1, "gelu": 3})
    assert fusion.summary == "attention 1/2, layer_norm 0/6"
