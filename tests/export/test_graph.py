"""The graphs: folded exactly, dynamic where they must be, and refused when they are not the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper

from vtr_export.graph import trace as trace_module
from vtr_export.graph.check import compare_graph, describe_graph, random_ids
from vtr_export.graph.fold import FoldedSampler, fold_text_tower, fold_video_tower
from vtr_export.graph.modules import RerankGraph
from vtr_export.graph.trace import TracedGraph, trace_rerank, trace_text
from vtr_export.model import AlignmentConfig, BackboneConfig, ModelConfig, RetrievalModel, redraw_zero_parameters
from vtr_export.model.checkpoint import Checkpoint, load_checkpoint
from vtr_export.model.config import RerankConfig
from vtr_export.model.dits import Sampler, without_evaluation_noise
from vtr_runtime.bundle import open_bundle
from vtr_runtime.errors import GateError

TINY_BACKBONE = {
    "embed_dim": 64,
    "vision_cfg": {"image_size": 16, "patch_size": 8, "layers": 1, "width": 32, "head_width": 16},
    "text_cfg": {"width": 32, "heads": 2, "layers": 1},
}


@pytest.fixture(scope="module")
def loaded(small_checkpoint: Path) -> Checkpoint:
    return load_checkpoint(small_checkpoint)


def test_folding_keeps_every_step_of_the_walk(loaded: Checkpoint) -> None:
    """In float64, where nothing but the folding itself could move a vector."""
    tower = loaded.model.text.double()
    ids = torch.from_numpy(random_ids(np.random.default_rng(0), 5, 16, loaded.config.text))
    with torch.no_grad():
        want, got = tower.stages(ids), fold_text_tower(tower).double().stages(ids)
    loaded.model.text.float()
    assert list(want) == list(got)
    for name, tensor in want.items():
        # the folded matrix is kept in float32
        assert torch.allclose(tensor, got[name], rtol=0, atol=1e-5 * float(tensor.norm(dim=-1).max())), name
    assert torch.cosine_similarity(want["text_embedding"], want["sampler_step_1"]).max() < 0.7


def towers(**settings: Any) -> Any:
    """A tiny model with another alignment, redrawn."""
    alignment = AlignmentConfig(kind="dits", steps=3, blocks=2, heads=4, **settings)
    torch.manual_seed(0)
    config = ModelConfig.from_backbone(BackboneConfig.from_open_clip(TINY_BACKBONE), alignment=alignment)
    model = RetrievalModel(config).eval()
    redraw_zero_parameters(model, 0)
    return model


@torch.no_grad()
def test_under_a_text_condition_attention_and_time_are_folded() -> None:
    model = towers(condition="text", eval_noise="sqrt-beta")
    tower, folded = model.text, fold_text_tower(model.text)
    assert tower.alignment.noise_in_evaluation  # what was given is as it was
    assert type(tower.alignment.network.blocks[0].attn).__name__ == "SelfAttentionOfOne"
    network: Any = folded.alignment.network  # type: ignore[union-attr]
    assert not list(network.time.parameters())
    assert isinstance(network.blocks[0].attn, torch.nn.Linear)
    without_evaluation_noise(model)
    ids = torch.from_numpy(random_ids(np.random.default_rng(0), 5, 16, model.config.text))
    want, got = tower.stages(ids), folded.stages(ids)
    assert list(want) == list(got)
    for name, tensor in want.items():
        assert torch.allclose(tensor, got[name], rtol=0, atol=1e-5 * float(tensor.norm(dim=-1).max())), name


@torch.no_grad()
def test_the_sampler_behind_the_video_tower_is_folded() -> None:
    model = towers(gap="t-v", eval_noise="sqrt-beta")
    folded = fold_video_tower(model.video)
    assert isinstance(folded.alignment, FoldedSampler)
    assert isinstance(model.video.alignment, Sampler)
    without_evaluation_noise(model)
    rng = np.random.default_rng(0)
    frames = torch.from_numpy(rng.integers(0, 256, (5, 12, 16, 16, 3), dtype=np.uint8))
    mask = torch.arange(12) < torch.tensor([[12], [1], [5], [7], [2]])
    want, got = model.video.stages(frames, mask), folded.stages(frames, mask)
    assert list(want) == list(got) == ["frame_embeddings", *(f"sampler_step_{k}" for k in (3, 2, 1)), "video_embedding"]
    for name, tensor in want.items():
        assert torch.allclose(tensor, got[name], rtol=0, atol=1e-5 * float(tensor.norm(dim=-1).max())), name


def test_the_manifest_tells_the_graphs_own_axes(small_bundle: Path) -> None:
    graphs = open_bundle(small_bundle).manifest.graphs
    frames, mask = graphs.video.inputs
    assert (frames.name, frames.dtype, frames.shape) == ("frames", "uint8", ("batch", 12, 32, 32, 3))
    assert (mask.name, mask.dtype, mask.shape) == ("frame_mask", "bool", ("batch", 12))
    [ids] = graphs.text.inputs
    assert (ids.name, ids.dtype, ids.shape) == ("input_ids", "int32", ("batch", "tokens"))
    for graph in (graphs.video, graphs.text):
        assert (graph.outputs[0].name, graph.outputs[0].dtype) == ("embedding", "float32")
        assert graph.outputs[0].shape == ("batch", 64)


def test_no_constant_of_a_step_is_computed_at_run_time(small_bundle: Path) -> None:
    """The time embedding's sines and the modulation's SiLU are gone; shared weights stand once."""
    proto = onnx.load(small_bundle / "text.onnx")
    operators = {node.op_type for node in proto.graph.node}
    assert not operators & {"Sin", "Cos", "Sigmoid", "RandomNormal", "RandomNormalLike"}
    big = [i.raw_data for i in proto.graph.initializer if len(i.raw_data) > 4096]
    assert len(big) == len(set(big))


def test_text_weights_are_stored_once(loaded: Checkpoint, small_bundle: Path) -> None:
    """The file against the weights that the folded tower holds; the rest is the graph itself."""
    folded = fold_text_tower(loaded.model.text)
    weights = sum(p.numel() * p.element_size() for p in folded.parameters())
    nodes = 64 * 1024  # a graph of a few hundred nodes and its step constants
    assert (small_bundle / "text.onnx").stat().st_size < 1.05 * weights + nodes


def test_large_weights_go_beside_the_graph(loaded: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace_module, "EXTERNAL_DATA_BYTES", 1000)
    tower = loaded.model.text
    graph = trace_text(fold_text_tower(tower), loaded.config, tmp_path / "text.onnx", opset=18, debug_outputs=False)
    assert graph.external_data == tmp_path / "text.onnx.data"
    assert (tmp_path / "text.onnx").stat().st_size < 1_000_000 < (tmp_path / "text.onnx.data").stat().st_size
    spec = describe_graph(graph)
    assert spec.external_data == "text.onnx.data"
    assert compare_graph(graph, tower, loaded.config.text) < 1e-5


def test_a_graph_that_is_not_the_model_is_refused(loaded: Checkpoint, small_bundle: Path) -> None:
    graph = TracedGraph(small_bundle / "text.onnx", None, ("input_ids",), ("embedding",), {})
    other = load_checkpoint_with_noise(loaded)
    with pytest.raises(
        GateError, match=r"text\.onnx differs from PyTorch by .* at batch 1, 2 tokens; the limit is 1e-05"
    ):
        compare_graph(graph, other, loaded.config.text)


def load_checkpoint_with_noise(loaded: Checkpoint) -> torch.nn.Module:
    import copy

    other = copy.deepcopy(loaded.model.text)
    with torch.no_grad():
        other.backbone.ln_final.weight.add_(1e-3)
    return other


def make_graph(path: Path, *, batch: str | int, operator: str = "Identity") -> TracedGraph:
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 4])
    out = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, [batch, 4])
    node = helper.make_node(operator, ["x"], ["embedding"])
    proto = helper.make_model(
        helper.make_graph([node], "g", [given], [out]), opset_imports=[helper.make_opsetid("", 18)]
    )
    proto.ir_version = 10
    onnx.save(proto, path)
    return TracedGraph(path, None, ("x",), ("embedding",), {"x": {0: "batch"}, "embedding": {0: "batch"}})


def test_an_axis_that_the_tracer_fixed_is_found(tmp_path: Path) -> None:
    assert describe_graph(make_graph(tmp_path / "good.onnx", batch="batch")).inputs[0].shape == ("batch", 4)
    with pytest.raises(GateError, match="the tracer fixed or freed one"):
        describe_graph(make_graph(tmp_path / "bad.onnx", batch=3))
    with pytest.raises(GateError, match="the tracer fixed or freed one"):
        describe_graph(make_graph(tmp_path / "other.onnx", batch="s0"))


def test_random_operators_are_refused(tmp_path: Path) -> None:
    with pytest.raises(GateError, match="random operators"):
        describe_graph(make_graph(tmp_path / "bad.onnx", batch="batch", operator="RandomNormalLike"))


def test_outputs_with_other_names_are_refused(tmp_path: Path) -> None:
    graph = make_graph(tmp_path / "good.onnx", batch="batch")
    renamed = TracedGraph(graph.path, None, ("x",), ("result",), graph.dynamic_axes)
    with pytest.raises(GateError, match="inputs and outputs"):
        describe_graph(renamed)


def test_a_type_that_no_host_gives_is_refused(tmp_path: Path) -> None:
    graph = make_graph(tmp_path / "good.onnx", batch="batch")
    proto = onnx.load(graph.path)
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    onnx.save(proto, graph.path)
    with pytest.raises(GateError, match="is of type FLOAT16"):
        describe_graph(graph)


TINY_SECOND_STAGES = (
    RerankConfig(kind="token-wise"),
    RerankConfig(kind="token-wise", interaction="wti", textual_attention=False),
    RerankConfig(kind="x-pool"),
)


@pytest.mark.parametrize("rerank", TINY_SECOND_STAGES, ids=lambda config: f"{config.kind}-{config.interaction}")
def test_a_second_stage_is_held_to_pytorch(tmp_path: Path, rerank: RerankConfig) -> None:
    torch.manual_seed(0)
    model = RetrievalModel(
        ModelConfig.from_backbone(BackboneConfig.from_open_clip(TINY_BACKBONE), rerank=rerank)
    ).eval()
    assert model.rerank is not None
    graph = trace_rerank(model.rerank, model.config, tmp_path / "rerank.onnx", opset=18)
    assert describe_graph(graph).outputs[0].shape == ("candidates",)
    module = RerankGraph(model.rerank, rerank)
    assert compare_graph(graph, module, model.config.text) < 1e-5
    with pytest.raises(GateError, match=r"rerank\.onnx differs from PyTorch by .* at batch 1, 2 tokens|at batch 1;"):
        compare_graph(graph, Doubled(module), model.config.text)


class Doubled(torch.nn.Module):
    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        return self.module(*inputs) * 2  # type: ignore[no-any-return]


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_the_video_graph_runs_at_any_batch(loaded: Checkpoint, small_bundle: Path, batch: int) -> None:
    session = onnxruntime.InferenceSession(str(small_bundle / "video.onnx"), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(batch)
    frames = rng.integers(0, 256, (batch, 12, 32, 32, 3), dtype=np.uint8)
    mask = np.arange(12) < rng.integers(1, 13, (batch, 1))
    with torch.inference_mode():
        want = loaded.model.video(torch.from_numpy(frames), torch.from_numpy(mask)).numpy()
    [got] = session.run(["embedding"], {"frames": frames, "frame_mask": mask})
    assert np.abs(want - got).max() < 1e-5
