"""Temporal heads against loops over frames in float64, written from the papers' equations, and what all heads keep."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from vtr_export.model import BackboneConfig, ModelConfig, RetrievalModel, TemporalConfig, redraw_zero_parameters
from vtr_export.model.temporal import build_temporal_head

D, T = 64, 8


def config(kind: str, *, quick_gelu: bool = False, frames: int = T, **settings: Any) -> ModelConfig:
    backbone = {
        "embed_dim": D,
        "quick_gelu": quick_gelu,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "head_width": 64, "patch_size": 16},
        "text_cfg": {"vocab_size": 49408, "width": D, "heads": 1, "layers": 4},
    }
    if kind not in ("mean", "lstm"):
        settings = {"heads": 4, "init": "random", **settings}
    temporal = TemporalConfig(kind=kind, **settings)  # type: ignore[arg-type]
    return ModelConfig.from_backbone(BackboneConfig.from_open_clip(backbone), frames=frames, temporal=temporal)


def build(kind: str, **settings: Any) -> nn.Module:
    torch.manual_seed(0)
    head = build_temporal_head(config(kind, **settings)).eval()
    redraw_zero_parameters(head, seed=1)
    with torch.no_grad():
        for name, value in head.named_parameters():
            if name.endswith(("positional_embedding", "short_positions")):
                value.normal_()  # large enough to be seen
    return head


def clips(frames: int = T, seed: int = 2) -> tuple[Tensor, Tensor]:
    """Four clips: whole, ending in padding, with holes, and of one frame."""
    features = torch.randn(4, frames, D, generator=torch.Generator().manual_seed(seed))
    mask = torch.ones(4, frames, dtype=torch.bool)
    mask[1, 5:] = False
    mask[2, 1::3] = False
    mask[3] = False
    mask[3, 0] = True
    return features, mask


HEADS = ["mean", "lstm", "transformer", "mstdt"]


# The papers' equations, one frame at a time.


def norm(x: Tensor) -> Tensor:
    return x / (x @ x).sqrt()


def layer_norm(x: Tensor, layer: nn.LayerNorm) -> Tensor:
    centred = x - x.mean()
    return centred / (centred.pow(2).mean() + 1e-5).sqrt() * layer.weight + layer.bias


def naive_block(tokens: list[Tensor], valid: list[bool], block: Any, heads: int, quick_gelu: bool) -> list[Tensor]:
    width = D // heads
    weight, bias = block.attn.in_proj_weight, block.attn.in_proj_bias
    queries, keys, values = (
        [weight[i * D : (i + 1) * D] @ layer_norm(x, block.ln_1) + bias[i * D : (i + 1) * D] for x in tokens]
        for i in range(3)
    )
    result = []
    for token, query in zip(tokens, queries, strict=True):
        answer = torch.zeros(D, dtype=torch.float64)
        for h in range(heads):
            part = slice(h * width, (h + 1) * width)
            scores = [float(query[part] @ key[part]) / width**0.5 for key in keys]
            powers = [2.718281828459045**score if seen else 0.0 for score, seen in zip(scores, valid, strict=True)]
            for power, value in zip(powers, values, strict=True):
                answer[part] += power / sum(powers) * value[part]
        x = token + block.attn.out_proj.weight @ answer + block.attn.out_proj.bias
        hidden = block.mlp.c_fc.weight @ layer_norm(x, block.ln_2) + block.mlp.c_fc.bias
        if quick_gelu:
            hidden = hidden / (1 + torch.exp(-1.702 * hidden))
        else:
            hidden = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
        result.append(x + block.mlp.c_proj.weight @ hidden + block.mlp.c_proj.bias)
    return result


def naive_mean(frames: list[Tensor]) -> Tensor:
    return norm(torch.stack([norm(frame) for frame in frames]).mean(dim=0))


def naive_sequence(head: Any, frames: Tensor, mask: list[bool], quick_gelu: bool) -> tuple[Tensor, Tensor]:
    """seqTransf of one clip: the video's embedding and its frames'."""
    tokens = [frame + head.positional_embedding[i] for i, frame in enumerate(frames)]
    for block in head.transformer.resblocks:
        tokens = naive_block(tokens, mask, block, 4, quick_gelu)
    mixed = [norm(token + frame) for token, frame in zip(tokens, frames, strict=True)]
    per_frame = torch.stack([m if seen else torch.zeros(D) for m, seen in zip(mixed, mask, strict=True)])
    return naive_mean([m for m, seen in zip(mixed, mask, strict=True) if seen]), per_frame


def naive_lstm(lstm: Any, inputs: list[Tensor]) -> list[Tensor]:
    """Hochreiter and Schmidhuber's cell with a forget gate, step by step; gates in torch's order i f g o."""
    state, cell, outputs = torch.zeros(D), torch.zeros(D), []
    for x in inputs:
        gates = lstm.weight_ih_l0 @ x + lstm.bias_ih_l0 + lstm.weight_hh_l0 @ state.double() + lstm.bias_hh_l0
        i, f, g, o = (gates[n * D : (n + 1) * D] for n in range(4))
        cell = cell / (1 + torch.exp(-f)) + (1 - 2 / (1 + torch.exp(2 * g))) / (1 + torch.exp(-i))
        state = (1 - 2 / (1 + torch.exp(2 * cell))) / (1 + torch.exp(-o))
        outputs.append(state)
    return outputs


@torch.no_grad()
def test_mean_pooling_agrees_with_a_loop() -> None:
    features, mask = clips()
    video, frames = build("mean")(features.double(), mask)
    for b in range(4):
        seen = [features[b, t].double() for t in range(T) if mask[b, t]]
        assert torch.allclose(video[b], naive_mean(seen), atol=1e-12)
        assert torch.allclose(frames[b][mask[b]], torch.stack([norm(x) for x in seen]), atol=1e-12)
        assert not frames[b][~mask[b]].any()


@pytest.mark.parametrize("quick_gelu", [False, True])
@torch.no_grad()
def test_the_frame_transformer_agrees_with_a_loop(quick_gelu: bool) -> None:
    head = build("transformer", layers=2, quick_gelu=quick_gelu).double()
    features, mask = clips()
    video, frames = head(features.double(), mask)
    for b in range(4):
        expected = naive_sequence(head, features[b].double(), mask[b].tolist(), quick_gelu)
        assert torch.allclose(video[b], expected[0], atol=1e-9)
        assert torch.allclose(frames[b], expected[1].double(), atol=1e-9)


@torch.no_grad()
def test_the_lstm_agrees_with_a_loop_and_a_hole_is_a_zero_frame() -> None:
    head: Any = build("lstm").double()
    features, mask = clips()
    video, frames = head(features.double(), mask)
    for b in range(4):
        clip = [features[b, t].double() if mask[b, t] else torch.zeros(D, dtype=torch.float64) for t in range(T)]
        mixed = [state + x for state, x in zip(naive_lstm(head.lstm, clip), clip, strict=True)]
        seen = [mixed[t] for t in range(T) if mask[b, t]]
        assert torch.allclose(video[b], naive_mean(seen), atol=1e-9)
        assert torch.allclose(frames[b][mask[b]], torch.stack([norm(x) for x in seen]), atol=1e-9)


@torch.no_grad()
def test_the_lstm_agrees_with_packed_sequences() -> None:
    head: Any = build("lstm").double()
    features, lengths = clips()[0].double(), [8, 5, 2, 1]
    mask = torch.arange(T) < torch.tensor(lengths)[:, None]
    packed = pack_padded_sequence(features, torch.tensor(lengths), batch_first=True)
    theirs = nn.LSTM(D, D, batch_first=True, dtype=torch.float64)
    theirs.load_state_dict(head.lstm.state_dict())
    states, _ = pad_packed_sequence(theirs(packed)[0], batch_first=True)
    _, frames = head(features, mask)
    for b, length in enumerate(lengths):
        want = [norm(states[b, t] + features[b, t]) for t in range(length)]
        assert torch.allclose(frames[b, :length], torch.stack(want), atol=1e-12)


def test_a_frozen_lstm_passes_gradients_on() -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    head: Any = build("lstm").eval().requires_grad_(False).to(device)
    assert not head.training
    assert head.lstm.training  # or cuDNN refuses
    features, mask = (x.to(device) for x in clips())
    video, _ = head(features.requires_grad_(), mask)
    video[:, 0].sum().backward()
    assert features.grad[mask].any(dim=-1).all()


@pytest.mark.parametrize("kind", HEADS)
@torch.no_grad()
def test_masked_frames_change_nothing(kind: str) -> None:
    head = build(kind)
    features, mask = clips()
    video, frames = head(features, mask)
    for garbage in (1e6, float("nan"), float("inf")):
        spoiled = torch.where(mask.unsqueeze(-1), features, garbage)
        again, frames_again = head(spoiled, mask)
        assert torch.equal(again, video)
        assert torch.equal(frames_again, frames)
    assert not frames[~mask].any()
    assert torch.allclose(frames[mask].norm(dim=-1), torch.ones(int(mask.sum())), atol=1e-6)
    assert torch.allclose(video.norm(dim=-1), torch.ones(4), atol=1e-6)


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("length", [1, 2, 5, 7])
@torch.no_grad()
def test_a_padded_clip_equals_the_shorter_one(kind: str, length: int) -> None:
    head = build(kind, frames=12)
    features, _ = clips(12)
    mask = (torch.arange(12) < length).expand(4, 12)
    padded, _ = head(features, mask)
    shorter, _ = head(features[:, :length], mask[:, :length])
    assert torch.allclose(padded, shorter, atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", HEADS)
@torch.no_grad()
def test_a_batch_equals_its_clips_one_by_one(kind: str) -> None:
    head = build(kind)
    features, mask = clips()
    together, _ = head(features, mask)
    alone = torch.cat([head(features[b : b + 1], mask[b : b + 1])[0] for b in range(4)])
    assert torch.allclose(together, alone, atol=1e-6, rtol=0)
    swapped, _ = head(features.flip(0), mask.flip(0))
    assert torch.allclose(swapped.flip(0), together, atol=1e-6, rtol=0)


@torch.no_grad()
def test_only_a_temporal_head_sees_the_order_of_frames() -> None:
    features, _ = clips()
    mask = torch.ones(4, T, dtype=torch.bool)
    moved = {kind: build(kind)(features, mask)[0] - build(kind)(features.flip(1), mask)[0] for kind in HEADS}
    assert moved["mean"].abs().max() < 1e-6
    assert all(moved[kind].abs().max() > 0.01 for kind in HEADS if kind != "mean")


@torch.no_grad()
def test_gradients_are_finite_where_frames_are_masked() -> None:
    for kind in HEADS:
        head = build(kind)
        features, mask = clips()
        features[~mask] = 0.0
        with torch.enable_grad():
            video, _ = head(features.requires_grad_(), mask)
            video[:, 0].sum().backward()
        assert features.grad is not None
        assert features.grad.isfinite().all()
        assert not features.grad[~mask].any()
        assert features.grad[mask].any(dim=-1).all()
        assert all(parameter.grad is not None and parameter.grad.any() for parameter in head.parameters())


def test_heads_have_the_papers_parameters() -> None:
    def count(kind: str) -> int:
        backbone = BackboneConfig.from_open_clip("ViT-B-32-quickgelu")
        temporal = TemporalConfig(kind=kind)  # type: ignore[arg-type]
        with torch.device("meta"):
            head = build_temporal_head(ModelConfig.from_backbone(backbone, temporal=temporal))
        return sum(parameter.numel() for parameter in head.parameters())

    assert count("mean") == 0
    assert count("transformer") == 12_648_960  # CLIP4Clip: 4 blocks and 77 positions
    assert count("lstm") == 2 * 4 * 512 * (512 + 1)  # four gates, each of the frame and of the state


def test_a_head_begins_as_the_text_tower() -> None:
    torch.manual_seed(0)
    model: Any = RetrievalModel(config("transformer", init="text", heads=1, layers=3))
    text, head = model.text.backbone, model.video.temporal
    for block, source in zip(head.transformer.resblocks, text.transformer.resblocks, strict=False):
        assert all(torch.equal(a, b) for a, b in zip(block.parameters(), source.parameters(), strict=True))
        assert block.mlp.c_fc.weight.data_ptr() != source.mlp.c_fc.weight.data_ptr()
    assert torch.equal(head.positional_embedding, text.positional_embedding)


def test_a_head_may_begin_at_random() -> None:
    torch.manual_seed(0)
    model: Any = RetrievalModel(config("transformer", position_init="normal", position_std=0.5))
    head, text = model.video.temporal, model.text.backbone
    assert head.positional_embedding.std().item() == pytest.approx(0.5, rel=0.1)
    assert not torch.equal(head.transformer.resblocks[0].mlp.c_fc.weight, text.transformer.resblocks[0].mlp.c_fc.weight)


@pytest.mark.filterwarnings("ignore")
def test_the_lstm_is_exported_as_one_operator(tmp_path: Path) -> None:
    head = build("lstm")
    program = torch.onnx.export(
        head,
        clips(),
        input_names=["features", "mask"],
        dynamic_shapes=({0: Dim("batch", min=1)},) * 2,
        opset_version=18,
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    program.save(tmp_path / "head.onnx")
    operators = [node.op_type for node in onnx.load(tmp_path / "head.onnx").graph.node]
    assert operators.count("LSTM") == 1
    assert not {"Shape", "Loop", "Scan"} & set(operators)
    session = onnxruntime.InferenceSession(tmp_path / "head.onnx", providers=["CPUExecutionProvider"])
    for features, mask in (clips(seed=3), tuple(x[1:2] for x in clips(seed=4))):
        with torch.no_grad():
            want = head(features, mask)
        got = session.run(None, {"features": features.numpy(), "mask": mask.numpy()})
        for ours, theirs in zip(want, got, strict=True):
            assert torch.allclose(ours, torch.from_numpy(theirs), atol=1e-5, rtol=0)
