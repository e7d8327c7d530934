"""Temporal heads against loops over frames and subsets in float64, written from the papers' equations."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

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
    if kind != "mean":
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


HEADS = ["mean", "transformer", "mstdt"]


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


def naive_scale(head: Any, encoder: Any, frames: Tensor, mask: list[bool], k: int) -> Tensor:
    """s_k of one clip: the mean over its non-empty subsets of the mean over their valid frames."""
    subsets = []
    for start in range(0, len(mask), k):
        inside = [i for i in range(start, start + k) if i < len(mask)]
        valid = [mask[i] for i in inside]
        if not any(valid):
            continue
        tokens = []
        for t, i in enumerate(inside):
            if t == 0:
                difference = frames[i]
            elif mask[i] and mask[i - 1]:
                difference = frames[i] - frames[i - 1]
            else:
                difference = torch.zeros(D)
            tokens.append(frames[i] + difference + head.short_positions[t])
        for block in encoder.transformer.resblocks:
            tokens = naive_block(tokens, valid, block, 4, False)
        subsets.append(torch.stack([norm(x) for x, seen in zip(tokens, valid, strict=True) if seen]).mean(dim=0))
    return torch.stack(subsets).mean(dim=0)


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


@pytest.mark.parametrize(
    "settings",
    [
        {"scales": (2, 4)},  # both divide 8
        {"scales": (3, 5, 16), "alpha": 0.3},  # none does, and one is longer than the clip
        {"scales": (3, 4), "short_layers": 2, "long_layers": 2},
    ],
    ids=["dividing", "not dividing", "deeper"],
)
@torch.no_grad()
def test_mstdt_agrees_with_a_loop_over_subsets(settings: dict[str, Any]) -> None:
    head: Any = build("mstdt", **settings).double()
    features, mask = clips()
    alpha = settings.get("alpha", 0.5)
    video, frames = head(features.double(), mask)
    for b in range(4):
        clip, seen = features[b].double(), mask[b].tolist()
        clip[~mask[b]] = 0.0
        scales = [naive_scale(head, e, clip, seen, k) for e, k in zip(head.short, settings["scales"], strict=True)]
        short = norm(torch.stack(scales).mean(dim=0))
        long, per_frame = naive_sequence(head.long, clip, seen, False)
        assert torch.allclose(video[b], norm(alpha * short + (1 - alpha) * long), atol=1e-9)
        assert torch.allclose(frames[b], per_frame.double(), atol=1e-9)
        assert (short - long).abs().max() > 0.05  # the branches are not one and the same


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
    assert moved["transformer"].abs().max() > 0.01
    assert moved["mstdt"].abs().max() > 0.01


@torch.no_grad()
def test_mstdt_really_differs_from_the_mean() -> None:
    features, mask = clips()
    mean, _ = build("mean")(features, mask)
    model = RetrievalModel(config("mstdt", init="text", heads=1))
    redraw_zero_parameters(model, seed=0)
    mstdt, _ = model.video.temporal(features, mask)
    assert (mstdt - mean).norm(dim=-1).min() > 0.05


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


def test_heads_have_the_papers_parameters() -> None:
    def count(kind: str) -> int:
        backbone = BackboneConfig.from_open_clip("ViT-B-32-quickgelu")
        temporal = TemporalConfig(kind=kind)  # type: ignore[arg-type]
        head = build_temporal_head(ModelConfig.from_backbone(backbone, temporal=temporal))
        return sum(parameter.numel() for parameter in head.parameters())

    assert count("mean") == 0
    assert count("transformer") == 12_648_960  # CLIP4Clip: 4 blocks and 77 positions
    assert count("mstdt") == 12_648_960 + 6 * 512  # the same blocks, and positions inside a subset


@pytest.mark.parametrize("kind", ["transformer", "mstdt"])
def test_a_head_begins_as_the_text_tower(kind: str) -> None:
    settings: dict[str, Any] = {"layers": 3} if kind == "transformer" else {"long_layers": 2}
    torch.manual_seed(0)
    model: Any = RetrievalModel(config(kind, init="text", heads=1, **settings))
    text, head = model.text.backbone, model.video.temporal
    stacks = (
        [head.transformer] if kind == "transformer" else [head.long.transformer, *(e.transformer for e in head.short)]
    )
    for stack in stacks:
        for block, source in zip(stack.resblocks, text.transformer.resblocks, strict=False):
            assert all(torch.equal(a, b) for a, b in zip(block.parameters(), source.parameters(), strict=True))
            assert block.mlp.c_fc.weight.data_ptr() != source.mlp.c_fc.weight.data_ptr()
    long = head if kind == "transformer" else head.long
    assert torch.equal(long.positional_embedding, text.positional_embedding)
    if kind == "mstdt":
        assert torch.equal(head.short_positions, text.positional_embedding[:6])


def test_a_head_may_begin_at_random() -> None:
    torch.manual_seed(0)
    model: Any = RetrievalModel(config("transformer", position_init="normal", position_std=0.5))
    head, text = model.video.temporal, model.text.backbone
    assert head.positional_embedding.std().item() == pytest.approx(0.5, rel=0.1)
    assert not torch.equal(head.transformer.resblocks[0].mlp.c_fc.weight, text.transformer.resblocks[0].mlp.c_fc.weight)
