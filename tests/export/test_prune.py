"""Pruned towers are the trained ones, and the work that could not reach the output is gone."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from vtr_export.graph.prune import (
    AttentionOfOne,
    BlockForOne,
    EndOfText,
    PixelVision,
    prune_text_tower,
    prune_video_tower,
    scale_queries,
)
from vtr_export.graph.rebuild import replace_modules, with_parts
from vtr_export.model import (
    AlignmentConfig,
    BackboneConfig,
    ModelConfig,
    RetrievalModel,
    TemporalConfig,
    redraw_zero_parameters,
)
from vtr_export.model.attention import Attention, ResidualBlock
from vtr_export.model.checkpoint import load_checkpoint

HEAD_WIDTHS = (16, 24, 64)  # the scale of 24 is no power of two
# Of values near 1; in float32 some two hundred operations follow one another.
EXACT, ROUNDED = 1e-9, 5e-6
LIMIT = {torch.float64: EXACT, torch.float32: ROUNDED}


def build(head_width: int = 64, temporal: dict[str, Any] | None = None) -> RetrievalModel:
    backbone = {
        "embed_dim": 64,
        "vision_cfg": {
            "image_size": 32, "patch_size": 8, "layers": 3, "width": 2 * head_width, "head_width": head_width
        },
        "text_cfg": {"width": 2 * head_width, "heads": 2, "layers": 3},
    }  # fmt: skip
    kind = {"kind": "mstdt", "heads": 2, "position_init": "normal", "init": "random"}
    torch.manual_seed(0)
    config = ModelConfig.from_backbone(
        BackboneConfig.from_open_clip(backbone),
        temporal=TemporalConfig(**(temporal or kind)),
        alignment=AlignmentConfig(kind="dits", steps=2, blocks=1, heads=2),
    )
    model = RetrievalModel(config).eval()
    redraw_zero_parameters(model, 0)
    # Norms and biases that are one and zero would hide a norm that is left out.
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("bias", "ln_1.weight", "ln_2.weight", "ln_pre.weight", "ln_post.weight")):
                parameter.add_(0.2 * torch.randn_like(parameter))
    return model


@pytest.fixture(scope="module", params=HEAD_WIDTHS)
def model(request: pytest.FixtureRequest) -> RetrievalModel:
    return build(request.param)


def frames(batch: int, size: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(batch)
    pictures = torch.randint(0, 256, (batch, 12, size, size, 3), generator=generator).to(torch.uint8)
    pictures[0], pictures[-1] = 0, 255
    mask = torch.arange(12) < torch.tensor([12, 1, 5, 11, 2, 7])[torch.arange(batch) % 6, None]
    mask[batch // 2] = torch.arange(12) % 2 == 1  # holes, and not from the start
    return pictures, mask


def sentences(length: int) -> Tensor:
    """A row for each place of the end token: random words before it, the highest id among them; zeros behind, or more
    end tokens."""
    generator = torch.Generator().manual_seed(length)
    ids = torch.randint(1, 49408, (length - 1, length), generator=generator, dtype=torch.int32)
    ids[ids == 49407] = 49405
    ids[:, 0] = 49406
    for row in range(length - 1):
        ids[row, row + 1] = 49407
        ids[row, row + 2 :] = 49407 if row % 3 == 0 else 0
    return ids


def furthest(want: dict[str, Tensor], got: dict[str, Tensor]) -> float:
    assert list(want) == list(got)
    return max(float((want[name] - got[name]).abs().max() / max(1.0, want[name].abs().max())) for name in want)


@torch.no_grad()
@pytest.mark.parametrize("kind", [torch.float64, torch.float32])
def test_the_video_tower_is_the_same_function(model: RetrievalModel, kind: torch.dtype) -> None:
    trained = copy.deepcopy(model.video).to(kind)
    given = frames(6, 32)
    assert furthest(trained.stages(*given), prune_video_tower(trained).stages(*given)) < LIMIT[kind]


def exact_fold(tower: Any) -> nn.Conv2d:
    """conv((x - mean) scale), derived here: a bias of what the convolution gives for black."""
    conv = tower.backbone.conv1
    folded = nn.Conv2d(3, conv.out_channels, conv.kernel_size, conv.stride).double()
    black = (0.0 - tower.mean.double()) * tower.scale.double()
    folded.weight.copy_(conv.weight.double() * tower.scale.double())
    folded.bias.copy_(torch.einsum("ochw,c->o", conv.weight.double(), black.reshape(3)))  # type: ignore[union-attr]
    return folded


@torch.no_grad()
def test_the_normalisation_is_in_the_patch_embedding(model: RetrievalModel) -> None:
    pruned: Any = prune_video_tower(model.video)
    assert not pruned.normalise
    assert "backbone.table" not in dict(model.video.named_buffers())
    want, got = exact_fold(model.video), pruned.backbone.conv1
    for name in ("weight", "bias"):
        exact = getattr(want, name)
        assert (getattr(got, name).double() - exact).abs().max() <= 2**-24 * exact.abs().max(), name
    pixels = torch.randint(0, 256, (2, 3, 32, 32), generator=torch.Generator().manual_seed(0)).double()
    normalised = (pixels - model.video.mean.double()) * model.video.scale.double()
    conv = copy.deepcopy(model.video.backbone.conv1).double()
    assert (want(pixels) - conv(normalised)).abs().max() < 1e-12


@torch.no_grad()
@pytest.mark.parametrize("kind", [torch.float64, torch.float32])
@pytest.mark.parametrize("words", [False, True])
def test_the_text_tower_is_the_same_function_at_every_length_and_end(
    model: RetrievalModel, kind: torch.dtype, words: bool
) -> None:
    trained = copy.deepcopy(model.text).to(kind)
    pruned = prune_text_tower(trained, words=words)
    lengths = range(2, 78) if kind == torch.float64 and not words else (2, 3, 16, 77)
    for length in lengths:
        ids = sentences(length) if length in (2, 3, 16, 77) else sentences(length)[:: max(1, length // 5)]
        assert furthest(trained.stages(ids), pruned.stages(ids)) < LIMIT[kind], length


@torch.no_grad()
def test_where_words_are_asked_for_every_token_stays(model: RetrievalModel) -> None:
    trained = copy.deepcopy(model.text).double()
    pruned = prune_text_tower(trained, words=True)
    for length in (2, 3, 16, 77):
        want, got = trained.with_words(sentences(length)), pruned.with_words(sentences(length))
        for name in ("raw", "embedding", "words"):
            assert (getattr(want, name) - getattr(got, name)).abs().max() < EXACT, (
                name,
                length,
            )
        assert torch.equal(want.word_mask, got.word_mask)
    assert not any(isinstance(module, BlockForOne) for module in pruned.modules())


def test_what_was_given_stays_and_shares_its_weights(model: RetrievalModel) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    kinds = [type(module) for module in model.modules()]
    pruned = (prune_video_tower(model.video), prune_text_tower(model.text, words=False))
    assert [type(module) for module in model.modules()] == kinds
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.video.normalise
    own = {parameter.data_ptr() for parameter in model.parameters()}
    for tower in pruned:
        for name, parameter in tower.named_parameters():
            new = name.endswith(("in_proj_weight", "in_proj_bias", "conv1.weight", "conv1.bias"))
            new = new or ".attn.query." in name or ".attn.key_value." in name
            new = new and not name.startswith("alignment.")  # attention over one token, which is folded elsewhere
            assert (parameter.data_ptr() in own) is not new, name


@pytest.mark.parametrize(("head_width", "scale"), [(16, 1 / 4), (64, 1 / 8)])
def test_queries_are_scaled_exactly_where_the_scale_is_a_power_of_two(head_width: int, scale: float) -> None:
    tower = build(head_width).text
    attention: Any = scale_queries(tower).backbone.transformer.resblocks[0].attn
    given, width = tower.backbone.transformer.resblocks[0].attn, 2 * head_width
    assert (given.scale, attention.scale) == (scale, 1.0)
    for name in ("in_proj_weight", "in_proj_bias"):
        old, new = getattr(given, name), getattr(attention, name)
        assert torch.equal(new[:width], old[:width] * scale)
        assert torch.equal(new[width:], old[width:])


@torch.no_grad()
@pytest.mark.parametrize("head_width", [16, 64])
def test_scaled_queries_change_no_bit(head_width: int) -> None:
    """Multiplying by a power of two commutes with every rounding."""
    tower = build(head_width).text
    attention: Any = tower.backbone.transformer.resblocks[0].attn
    scaled: Any = scale_queries(tower).backbone.transformer.resblocks[0].attn
    x = torch.randn(3, 9, 2 * head_width, generator=torch.Generator().manual_seed(0))
    old = torch.nn.functional.linear(x, attention.in_proj_weight, attention.in_proj_bias)[..., : 2 * head_width]
    new = torch.nn.functional.linear(x, scaled.in_proj_weight, scaled.in_proj_bias)[..., : 2 * head_width]
    assert torch.equal(old * attention.scale, new)


@torch.no_grad()
@pytest.mark.parametrize("variant", ["B", "C"])
def test_a_stack_that_serves_all_scales_still_stands_once(variant: str) -> None:
    settings = {"kind": "mstdt", "variant": variant, "long_layers": 2, "heads": 2, "position_init": "normal"}
    video = build(64, {**settings, "init": "random"}).video
    pruned = prune_video_tower(video)
    count = sum(isinstance(module, Attention) for module in video.temporal.modules())
    assert sum(isinstance(module, Attention) for module in pruned.temporal.modules()) == count
    sizes = [sum(p.numel() for p in tower.temporal.parameters()) for tower in (video, pruned)]
    assert sizes[0] == sizes[1]
    given = frames(4, 32)
    assert furthest(video.stages(*given), pruned.stages(*given)) < ROUNDED


@torch.no_grad()
def test_a_resnet_keeps_its_normalisation(small_checkpoint: Path) -> None:
    """Its first convolution pads normalised pixels with zeros, which are no pixels of zero."""
    video = load_checkpoint(small_checkpoint).model.video
    pruned = prune_video_tower(video)
    assert pruned.normalise
    assert pruned.backbone is video.backbone
    given = frames(4, 32)
    assert furthest(video.stages(*given), pruned.stages(*given)) < ROUNDED


def flops(module: nn.Module, *inputs: Tensor) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(*inputs)
    return int(counter.get_total_flops())


@pytest.mark.parametrize("batch", [1, 3])
def test_the_last_blocks_work_is_gone(batch: int) -> None:
    """Counted by hand for one block: with L tokens of width w, one query saves (L - 1)(2 w^2 of its projections + 8 w^2
    of the MLP) products and as many sums. The counter does not see inside the attention."""
    model = build(64).requires_grad_(False)
    width, tokens, pictures = 128, 17, batch * 12
    given = frames(batch, 32)
    saved = flops(model.video, *given) - flops(prune_video_tower(model.video), *given)
    assert saved == 2 * pictures * (tokens - 1) * 10 * width**2
    ids = sentences(16)
    saved = flops(model.text, ids) - flops(prune_text_tower(model.text, words=False), ids)
    assert saved == 2 * len(ids) * 15 * 10 * width**2


def test_classes_of_the_pruned_towers(model: RetrievalModel) -> None:
    video, text = prune_video_tower(model.video), prune_text_tower(model.text, words=False)
    assert (type(video.backbone), type(text.backbone)) == (PixelVision, EndOfText)
    for tower in (video, text):
        *blocks, last = tower.backbone.transformer.resblocks  # type: ignore[union-attr]
        assert {type(block) for block in blocks} == {ResidualBlock}
        assert type(last) is BlockForOne
        assert type(last.attn) is AttentionOfOne
        assert not tower.training


def test_rebuilding_copies_only_the_way_to_what_changes() -> None:
    inner = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    tree = nn.ModuleDict({"a": inner, "b": inner, "c": nn.Sequential(nn.Tanh())})
    changed = replace_modules(tree, lambda module: nn.GELU() if isinstance(module, nn.ReLU) else None)
    assert isinstance(tree["a"][1], nn.ReLU)  # type: ignore[index]
    assert isinstance(changed["a"][1], nn.GELU)  # type: ignore[index]
    assert changed["a"] is changed["b"]
    assert changed["a"] is not inner
    assert changed["a"][0] is inner[0]  # type: ignore[index]
    assert changed["c"] is tree["c"]
    assert replace_modules(tree, lambda _: None) is tree
    other = with_parts(inner, **{"1": nn.Tanh()})
    assert isinstance(inner[1], nn.ReLU)
    assert np.all([isinstance(other[1], nn.Tanh), other[0] is inner[0]])
