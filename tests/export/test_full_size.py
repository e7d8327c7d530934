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
from vtr_export.model.video_tower import VideoTower

pytestmark = pytest.mark.long


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

    operators = count_operators(graph.path)
    # Of the batch and the length.
    assert operators["Shape"] <= 2
    assert operators["Concat"] <= 4
    assert operators["Slice"] <= 3


def count_operators(path: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(path, load_external_data=False).graph.node)


# Nodes do not depend on widths: a narrow tower of all layers and places stands for the full size, which is seen once.
# What torch's own exporter makes of it has 600 nodes and more.
@pytest.mark.parametrize(("opset", "most", "narrow"), [(18, 360, True), (20, 360, False), (23, 260, True)])
def test_the_video_tower_with_mean_pooling_has_few_nodes(
    model: RetrievalModel, tmp_path: Path, opset: int, most: int, narrow: bool
) -> None:
    config, video = model.config, with_parts(model.video, temporal=MeanHead())
    if narrow:
        vision = config.backbone.vision.model_copy(update={"width": 96, "head_width": 8})
        config = ModelConfig.from_backbone(config.backbone.model_copy(update={"vision": vision}))
        video = VideoTower(config).eval()
    graph = trace_video(prune_video_tower(video), config, tmp_path / "video.onnx", opset=opset)
    operators = count_operators(graph.path)
    assert 200 < operators.total() == count_nodes(graph.path) <= most
    # Sizes are numbers in the graph; the batch alone is free, and a Reshape to -1 needs no arithmetic.
    assert not set(operators) & {"Shape", "Concat", "Range", "Expand", "Slice", "ConstantOfShape", "Identity"}
    assert operators["Attention"] == (12 if opset == 23 else 0)
    assert operators["Softmax"] == (0 if opset == 23 else 12)
    assert operators["LayerNormalization"] == 26
    assert operators["Cast"] == 1
