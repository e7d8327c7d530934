"""A full-size ViT-B-32-quickgelu with mstdt and dits (T' = 10), every part of it at work, holds parity to 1e-5."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import onnx
import pytest
import torch

from vtr_export.graph.check import compare_graph, count_nodes, describe_graph
from vtr_export.graph.fold import fold_text_tower
from vtr_export.graph.prune import prune_text_tower, prune_video_tower
from vtr_export.graph.rebuild import with_parts
from vtr_export.graph.trace import trace_text, trace_video
from vtr_export.model.attention import unit
from vtr_export.model.config import AlignmentConfig, ModelConfig, TemporalConfig
from vtr_export.model.redraw import redraw_zero_parameters
from vtr_export.model.retrieval import RetrievalModel
from vtr_export.model.stock import from_open_clip
from vtr_export.model.temporal import MeanHead


@pytest.fixture(scope="module")
def model() -> RetrievalModel:
    torch.manual_seed(0)
    made = from_open_clip(
        "ViT-B-32-quickgelu",
        pretrained=None,
        temporal=TemporalConfig(kind="mstdt"),
        alignment=AlignmentConfig(kind="dits", steps=10),
    )
    redraw_zero_parameters(made, 0)
    return made.eval()


def test_video_tower(model: RetrievalModel, tmp_path: Path) -> None:
    config = model.config
    generator = torch.Generator().manual_seed(1)
    frames = torch.randint(0, 256, (2, 12, 224, 224, 3), generator=generator).to(torch.uint8)
    with torch.inference_mode():
        features, mask = model.video.encode_frames(frames), torch.ones(2, 12, dtype=torch.bool)
        moved = model.video.temporal(features, mask)[0] - MeanHead()(features, mask)[0]
    assert moved.norm(dim=-1).min() > 0.05
    graph = trace_video(prune_video_tower(model.video), config, tmp_path / "video.onnx", opset=20)
    assert describe_graph(graph).inputs[0].shape == ("batch", 12, 224, 224, 3)
    assert compare_graph(graph, model.video, config.text) < 1e-5


def test_text_tower(model: RetrievalModel, tmp_path: Path) -> None:
    config = model.config
    ids = torch.tensor([[49406, 320, 1929, 49407, 0], [49406, 7000, 8000, 9000, 49407]], dtype=torch.int32)
    with torch.inference_mode():
        stages = model.text.stages(ids)
    assert (unit(stages["text_embedding"]) * stages["aligned"]).sum(-1).max() < 0.7
    folded = prune_text_tower(fold_text_tower(model.text), words=False)
    graph = trace_text(folded, config, tmp_path / "text.onnx", opset=20)
    assert describe_graph(graph).inputs[0].shape == ("batch", "tokens")
    assert compare_graph(graph, model.text, config.text) < 1e-5
    weights = sum(tensor.numel() * tensor.element_size() for tensor in folded.parameters())
    assert graph.path.stat().st_size <= 1.05 * weights


# What torch's own exporter makes of such a tower has 600 nodes and more.
@pytest.mark.parametrize(("opset", "most"), [(18, 360), (20, 360), (23, 260)])
def test_the_video_tower_with_mean_pooling_has_few_nodes(
    model: RetrievalModel, tmp_path: Path, opset: int, most: int
) -> None:
    """Nodes do not depend on widths: one of all layers, heads and places, narrow, stands for the full size."""
    backbone = model.config.backbone
    vision = backbone.vision.model_copy(update={"width": 96, "head_width": 8})
    narrow = backbone.model_copy(update={"vision": vision, "embed_dim": 64})
    torch.manual_seed(0)
    small = RetrievalModel(ModelConfig.from_backbone(narrow)).eval()
    graph = trace_video(prune_video_tower(small.video), small.config, tmp_path / "video.onnx", opset=opset)
    assert 200 < count_nodes(graph.path) <= most
    operators = Counter(node.op_type for node in onnx.load(graph.path).graph.node)
    # Sizes are numbers in the graph; the batch alone is free, and a Reshape to -1 needs no arithmetic.
    assert not set(operators) & {"Shape", "Concat", "Range", "Expand", "Slice", "ConstantOfShape", "Identity"}
    assert operators["Attention"] == (12 if opset == 23 else 0)
    assert operators["Softmax"] == (0 if opset == 23 else 12)
    assert operators["LayerNormalization"] == 26
    assert operators["Cast"] == 1


def test_that_holds_at_full_size(model: RetrievalModel, tmp_path: Path) -> None:
    tower = prune_video_tower(with_parts(model.video, temporal=MeanHead()))
    graph = trace_video(tower, model.config, tmp_path / "video.onnx", opset=20)
    assert count_nodes(graph.path) <= 360


def test_the_text_towers_arithmetic_of_shapes_is_the_batchs_and_the_lengths(
    model: RetrievalModel, tmp_path: Path
) -> None:
    text = prune_text_tower(with_parts(model.text, alignment=None), words=False)  # type: ignore[arg-type]
    graph = trace_text(text, model.config, tmp_path / "text.onnx", opset=20)
    operators = Counter(node.op_type for node in onnx.load(graph.path).graph.node)
    assert operators["Shape"] <= 2
    assert operators["Concat"] <= 4
    assert operators["Slice"] <= 3
    assert operators["LayerNormalization"] == 25
