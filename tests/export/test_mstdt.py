"""MSTDT's variants and switches against loops in float64 over clips, subsets and frames, from the paper's equations.

The reference never sees a masked frame: it gathers what is valid and lets attention run over that alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.nn import functional as F

from vtr_export.model import BackboneConfig, ModelConfig, RetrievalModel, TemporalConfig, redraw_zero_parameters
from vtr_export.model.mstdt import DifferenceTransformer
from vtr_export.model.temporal import MeanHead, build_temporal_head

D, T, HEADS = 32, 8, 4

CASES: dict[str, dict[str, Any]] = {
    "scales divide the clip": {"scales": (2, 4)},
    "scales do not": {"scales": (3, 5, 16), "alpha": 0.3},
    "deeper": {"scales": (3, 4), "short_layers": 2, "long_layers": 2},
    "B": {"variant": "B"},
    "C": {"variant": "C", "long_layers": 2},
    "C, one scale": {"variant": "C", "scales": (3,), "long_layers": 1},
    "zero-last": {"difference": "zero-last"},
    "cross-boundary": {"difference": "cross-boundary"},
    "no difference": {"difference": "none"},
    "gate": {"merge": "gate", "gate_init": 0.3},
    "projection": {"merge": "projection"},
    "interleave": {"merge": "interleave"},
    "interleave zero-last": {"merge": "interleave", "difference": "zero-last"},
    "interleave cross-boundary": {"merge": "interleave", "difference": "cross-boundary", "variant": "B"},
    "stride 1": {"stride": 1},
    "stride 2, zero-last": {"stride": 2, "difference": "zero-last"},
    "stride 2, cross-boundary, drop": {"stride": 2, "difference": "cross-boundary", "tail": "drop"},
    "drop": {"tail": "drop"},
    "absolute": {"positions": "absolute"},
    "absolute, stride 3, interleave": {"positions": "absolute", "stride": 3, "merge": "interleave"},
    "sum": {"pool": "sum"},
    "residual": {"short_residual": True},
    "not normalised": {"normalise": False},
    "not normalised, sum, residual": {"normalise": False, "pool": "sum", "short_residual": True, "variant": "C"},
    "alpha learned": {"alpha_learned": True, "alpha": 0.2},
    "alpha 0": {"alpha": 0.0},
    "alpha 1": {"alpha": 1.0},
}

with_cases = pytest.mark.parametrize("settings", CASES.values(), ids=CASES.keys())


def config(**settings: Any) -> ModelConfig:
    backbone = {
        "embed_dim": D,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "head_width": 64, "patch_size": 16},
        "text_cfg": {"vocab_size": 49408, "width": D, "heads": HEADS, "layers": 4},
    }
    temporal = TemporalConfig(kind="mstdt", **{"heads": HEADS, "init": "random", **settings})
    return ModelConfig.from_backbone(BackboneConfig.from_open_clip(backbone), frames=T, temporal=temporal)


def build(**settings: Any) -> Any:
    """A head whose parameters all differ from what they begin as, so that each can be seen."""
    torch.manual_seed(0)
    head = build_temporal_head(config(**settings)).eval()
    assert isinstance(head, DifferenceTransformer)
    with torch.no_grad():
        for name, value in head.named_parameters():
            if name.endswith(("positional_embedding", "short_positions", "types")):
                value.normal_()
            elif name != "alpha_logit" and name != "merge.gate":
                value.add_(torch.randn_like(value) * 0.1)
    return head


def clips(frames: int = T, seed: int = 2) -> tuple[Tensor, Tensor]:
    """Six clips: whole, ending in padding, with holes, of the first frame, of one in the middle, of the last two."""
    features = torch.randn(6, frames, D, generator=torch.Generator().manual_seed(seed))
    mask = torch.zeros(6, frames, dtype=torch.bool)
    mask[0] = True
    mask[1, :5] = True
    mask[2, ::3] = True
    mask[2, 1] = True
    mask[3, 0] = True
    mask[4, frames // 2] = True
    mask[5, -2:] = True
    return features, mask


# The paper's equations, one clip, one subset, one frame at a time.


def norm(x: Tensor) -> Tensor:
    return x / (x @ x).sqrt()


def blocks(tokens: list[Tensor], transformer: Any) -> list[Tensor]:
    """CLIP's residual blocks by torch's own attention, over tokens that may all be seen."""
    x = torch.stack(tokens)[None]
    for block in transformer.resblocks:
        attention = nn.MultiheadAttention(D, HEADS, batch_first=True, dtype=torch.float64)
        attention.load_state_dict(block.attn.state_dict())
        y = F.layer_norm(x, (D,), block.ln_1.weight, block.ln_1.bias)
        x = x + attention(y, y, y, need_weights=False)[0]
        y = F.layer_norm(x, (D,), block.ln_2.weight, block.ln_2.bias)
        x = x + F.gelu(y @ block.mlp.c_fc.weight.T + block.mlp.c_fc.bias) @ block.mlp.c_proj.weight.T
        x = x + block.mlp.c_proj.bias
    return list(x[0])


def starts(k: int, stride: int, tail: str) -> list[int]:
    """Where the subsets of a clip of T frames begin."""
    found = [0]
    while found[-1] + k < T:
        found.append(found[-1] + stride)
    return [start for start in found if start + k <= T] if tail == "drop" else found


def difference(clip: Tensor, mask: list[bool], i: int, slot: int, k: int, kind: str) -> Tensor | None:
    """d at frame i, slot `slot` of its subset; None where it does not count."""
    if kind == "guide" and slot == 0:
        return clip[i]
    if kind == "zero-last" and slot == k - 1:
        return None
    earlier, later = (i, i + 1) if kind == "zero-last" else (i - 1, i)
    if earlier < 0 or later >= T or not mask[earlier] or not mask[later]:
        return None
    return clip[later] - clip[earlier]


def reference_subset(head: Any, stack: Any, clip: Tensor, mask: list[bool], start: int, k: int) -> Tensor | None:
    """The pooled frames of one subset; None if none is valid."""
    settings = head.config
    valid = [i for i in range(start, min(start + k, T)) if mask[i]]
    if not valid:
        return None
    tokens, extra = [], []
    for i in valid:
        place = head.short_positions[i if settings.positions == "absolute" else i - start]
        d = None if settings.difference == "none" else difference(clip, mask, i, i - start, k, settings.difference)
        token = clip[i] + place
        if settings.merge == "interleave":
            token = token + head.merge.types[0]
            if d is not None:
                extra.append(d + place + head.merge.types[1])
        elif d is not None and settings.merge == "gate":
            token = token + head.merge.gate * d
        elif d is not None and settings.merge == "projection":
            token = token + head.merge.projection.weight @ d
        elif d is not None:
            token = token + d
        tokens.append(token)
    mixed = blocks(tokens + extra, stack)[: len(valid)]
    if settings.short_residual:
        mixed = [m + clip[i] for m, i in zip(mixed, valid, strict=True)]
    if settings.normalise:
        mixed = [norm(m) for m in mixed]
    total = torch.stack(mixed).sum(dim=0)
    return total / len(mixed) if settings.pool == "mean" else total


def reference(head: Any, clip: Tensor, mask: list[bool]) -> tuple[Tensor, Tensor]:
    """V and the long term's frames of one clip."""
    settings = head.config
    valid = [i for i in range(T) if mask[i]]
    mixed = blocks([clip[i] + head.long.positional_embedding[i] for i in valid], head.long.transformer)
    mixed = [m + clip[i] for m, i in zip(mixed, valid, strict=True)]
    frames = torch.zeros(T, D, dtype=torch.float64)
    frames[valid] = torch.stack([norm(m) for m in mixed])
    long = torch.stack([norm(m) if settings.normalise else m for m in mixed]).mean(dim=0)

    scales = []
    for n, k in enumerate(settings.scales):
        stack = {
            "A": lambda n=n: head.short[n].transformer,
            "B": lambda: head.short[0].transformer,
            "C": lambda: head.long.transformer,
        }[settings.variant]()
        begin = starts(k, settings.stride or k, settings.tail)
        filled, held = [], set[int]()
        for start in begin:
            subset = reference_subset(head, stack, clip, mask, start, k)
            valid = {i for i in range(start, min(start + k, T)) if mask[i]}
            if subset is not None and valid - held:
                filled.append(subset)
            held |= valid
        scales.append(torch.stack(filled).mean(dim=0) if filled else torch.zeros(D, dtype=torch.float64))
    short = torch.stack(scales).mean(dim=0)

    if settings.normalise:
        long = norm(long)
        short = norm(short) if short.any() else short
    alpha = torch.sigmoid(head.alpha_logit) if settings.alpha_learned else settings.alpha
    return norm(alpha * short + (1 - alpha) * long), frames


@with_cases
@torch.no_grad()
def test_every_switch_agrees_with_loops(settings: dict[str, Any]) -> None:
    head = build(**settings).double()
    features, mask = clips()
    video, frames = head(features.double(), mask)
    for b in range(len(features)):
        want, per_frame = reference(head, features[b].double(), mask[b].tolist())
        assert torch.allclose(video[b], want, atol=1e-9, rtol=0), f"clip {b}"
        assert torch.allclose(frames[b], per_frame, atol=1e-9, rtol=0), f"clip {b}"


@torch.no_grad()
def test_every_switch_changes_the_embedding() -> None:
    """No two cases are one function: a switch that did nothing would be found here."""
    features, mask = clips()
    mean, _ = MeanHead()(features, mask)
    videos = {name: build(**settings)(features, mask)[0] for name, settings in CASES.items()}
    for name, video in videos.items():
        assert (video - mean).norm(dim=-1)[0] > 0.05, name
        for other, theirs in videos.items():
            assert name == other or (video - theirs).norm(dim=-1).max() > 1e-3, (name, other)


@with_cases
@torch.no_grad()
def test_masked_frames_change_nothing(settings: dict[str, Any]) -> None:
    head = build(**settings)
    features, mask = clips()
    video, frames = head(features, mask)
    for garbage in (1e6, float("nan"), float("inf")):
        again, frames_again = head(torch.where(mask.unsqueeze(-1), features, garbage), mask)
        assert torch.equal(again, video)
        assert torch.equal(frames_again, frames)
    assert not frames[~mask].any()
    seen = slice(0, 4) if settings.get("tail") == "drop" else slice(0, 6)  # a scale may drop all that is valid
    assert torch.allclose(video[seen].norm(dim=-1), torch.ones_like(video[seen, 0]), atol=1e-6)


@pytest.mark.parametrize("length", [1, 2, 5, 7])
@torch.no_grad()
def test_a_padded_clip_equals_the_shorter_one(length: int) -> None:
    """Where the tail is padded; one that is dropped depends on the number of frames by its nature."""
    features, _ = clips()
    mask = (torch.arange(T) < length).expand(6, T)
    for settings in CASES.values():
        if settings.get("tail") != "drop":
            head = build(**settings)
            padded, _ = head(features, mask)
            shorter, _ = head(features[:, :length], mask[:, :length])
            assert torch.allclose(padded, shorter, atol=2e-6, rtol=0), settings


@with_cases
def test_gradients_reach_every_parameter_and_are_finite(settings: dict[str, Any]) -> None:
    head = build(**settings)
    features, mask = clips()
    features[~mask] = 0.0
    video, frames = head(features.requires_grad_(), mask)
    (video[:, 0].sum() + frames[..., 0].sum()).backward()
    assert features.grad is not None
    assert features.grad.isfinite().all()
    assert not features.grad[~mask].any()
    for name, parameter in head.named_parameters():
        reached = parameter.grad is not None and bool(parameter.grad.any())
        short = name.startswith("short")
        assert reached != (short and settings.get("alpha") == 0.0), name  # alpha 0 leaves the short term out
        assert parameter.grad.isfinite().all()


@torch.no_grad()
def test_a_clip_whose_valid_frames_are_dropped_keeps_its_long_term() -> None:
    head = build(scales=(6,), tail="drop")
    features, mask = clips()
    video, frames = head(features, mask)
    assert torch.allclose(video[5], norm(frames[5].sum(dim=0)), atol=1e-6)


def test_merges_begin_as_the_addition() -> None:
    features, mask = clips()
    embeddings = []
    for settings in ({}, {"merge": "gate"}, {"merge": "projection"}):
        torch.manual_seed(0)
        head = build_temporal_head(config(**settings))
        with torch.no_grad():
            embeddings.append(head(features, mask)[0])
    assert torch.allclose(embeddings[0], embeddings[1], atol=1e-6)
    assert torch.allclose(embeddings[0], embeddings[2], atol=1e-6)
    head = build_temporal_head(config(merge="gate", gate_init=-0.5))
    assert dict(head.named_parameters())["merge.gate"].item() == -0.5
    head = build_temporal_head(config(alpha_learned=True, alpha=0.3))
    assert torch.sigmoid(dict(head.named_parameters())["alpha_logit"]).item() == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("settings", "beside"),
    [
        ({}, 6 * 512),  # positions inside a subset
        ({"variant": "B"}, 6 * 512),
        ({"variant": "C"}, 6 * 512),
        ({"positions": "absolute"}, 12 * 512),
        ({"merge": "gate"}, 6 * 512 + 1),
        ({"merge": "projection"}, 6 * 512 + 512 * 512),
        ({"merge": "interleave"}, 6 * 512 + 2 * 512),
        ({"alpha_learned": True}, 6 * 512 + 1),
    ],
)
def test_every_variant_has_as_many_parameters_as_four_blocks(settings: dict[str, Any], beside: int) -> None:
    model = ModelConfig.from_backbone(
        BackboneConfig.from_open_clip("ViT-B-32-quickgelu"), temporal=TemporalConfig(kind="mstdt", **settings)
    )
    with torch.device("meta"):
        head = build_temporal_head(model)
    in_blocks = sum(value.numel() for name, value in head.named_parameters() if ".resblocks." in name)
    assert in_blocks == 12_609_536  # four of CLIP4Clip's blocks of width 512
    assert sum(value.numel() for value in head.parameters()) == in_blocks + 77 * 512 + beside
    assert len(head.state_dict()) == len(list(head.parameters()))  # no weight is written twice


@pytest.mark.parametrize("variant", ["A", "B", "C"])
@pytest.mark.parametrize("positions", ["subset", "absolute"])
def test_a_head_begins_as_the_text_tower(variant: str, positions: str) -> None:
    torch.manual_seed(0)
    model: Any = RetrievalModel(config(init="text", variant=variant, positions=positions))
    text, head = model.text.backbone, model.video.temporal
    stacks = [head.long.transformer, *(stack.transformer for stack in head.short)]
    assert [len(stack.resblocks) for stack in stacks] == {"A": [1, 1, 1, 1], "B": [2, 2], "C": [4]}[variant]
    for stack in stacks:
        for block, source in zip(stack.resblocks, text.transformer.resblocks, strict=False):
            assert all(torch.equal(a, b) for a, b in zip(block.parameters(), source.parameters(), strict=True))
            assert block.mlp.c_fc.weight.data_ptr() != source.mlp.c_fc.weight.data_ptr()
    assert torch.equal(head.long.positional_embedding, text.positional_embedding)
    rows = 6 if positions == "subset" else T
    assert torch.equal(head.short_positions, text.positional_embedding[:rows])


def test_a_model_that_was_never_trained_differs_from_the_mean() -> None:
    features, mask = clips()
    model = RetrievalModel(config(init="text"))
    redraw_zero_parameters(model, seed=0)
    with torch.no_grad():
        mean, _ = MeanHead()(features, mask)
        video, _ = model.video.temporal(features, mask)
    assert (video - mean).norm(dim=-1).min() > 0.05


# The defaults are exported with the towers, in the tests of the exporter.
EXPORTED: list[dict[str, Any]] = [
    {"variant": "B", "merge": "gate", "difference": "zero-last", "stride": 2, "tail": "drop", "pool": "sum"},
    {"variant": "C", "merge": "interleave", "difference": "cross-boundary", "short_residual": True, "normalise": False},
    {"merge": "projection", "positions": "absolute", "stride": 3, "alpha_learned": True, "alpha": 0.4},
    {"difference": "none", "scales": (3, 4)},
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("settings", EXPORTED, ids=["B gate", "C interleave", "projection", "none"])
def test_the_exported_graph_agrees_and_holds_no_shape_arithmetic(settings: dict[str, Any], tmp_path: Path) -> None:
    head, path = build(**settings), tmp_path / "head.onnx"
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
    program.save(path)
    assert not {"Shape", "Size", "NonZero", "Loop", "If"} & {node.op_type for node in onnx.load(path).graph.node}
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for features, mask in (clips(seed=3), tuple(x[1:2] for x in clips(seed=4))):
        with torch.no_grad():
            want = head(features, mask)
        got = session.run(None, {"features": features.numpy(), "mask": mask.numpy()})
        for ours, theirs in zip(want, got, strict=True):
            assert torch.allclose(ours, torch.from_numpy(theirs), atol=1e-5, rtol=0)
