"""A full-size ViT-B-32-quickgelu with mstdt and dits (T' = 10), every part of it at work, holds parity to 1e-5."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from vtr_export.graph.check import compare_with_torch, describe_graph
from vtr_export.graph.fold import fold_text_tower
from vtr_export.graph.trace import trace_text, trace_video
from vtr_export.model.attention import unit
from vtr_export.model.config import AlignmentConfig, TemporalConfig
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
    graph = trace_video(model.video, config, tmp_path / "video.onnx", opset=18, debug_outputs=False)
    assert describe_graph(graph).inputs[0].shape == ("batch", 12, 224, 224, 3)
    assert compare_with_torch(graph, model.video, config.frames, config.text) < 1e-5


def test_text_tower(model: RetrievalModel, tmp_path: Path) -> None:
    config = model.config
    ids = torch.tensor([[49406, 320, 1929, 49407, 0], [49406, 7000, 8000, 9000, 49407]], dtype=torch.int32)
    with torch.inference_mode():
        stages = model.text.stages(ids)
    assert (unit(stages["text_embedding"]) * stages["aligned"]).sum(-1).max() < 0.7
    folded = fold_text_tower(model.text)
    graph = trace_text(folded, config, tmp_path / "text.onnx", opset=18, debug_outputs=False)
    assert describe_graph(graph).inputs[0].shape == ("batch", "tokens")
    assert compare_with_torch(graph, model.text, config.frames, config.text) < 1e-5
    weights = sum(tensor.numel() * tensor.element_size() for tensor in folded.parameters())
    assert graph.path.stat().st_size <= 1.05 * weights
