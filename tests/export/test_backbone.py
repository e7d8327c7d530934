"""CLIP's towers against open_clip's own, with redrawn weights so that nothing is trivially zero."""

from __future__ import annotations

from typing import Any

import open_clip
import pytest
import torch
from torch import Tensor, nn

from vtr_export.model import BackboneConfig
from vtr_export.model.attention import Attention, causal_mask, key_mask, unit
from vtr_export.model.backbone import TextTransformer, build_image_tower, load_open_clip_state_dict
from vtr_runtime.errors import CheckpointError

START, END = 49406, 49407


def vit(**vision: Any) -> dict[str, Any]:
    return {
        "embed_dim": 48,
        "vision_cfg": {"image_size": 40, "layers": 2, "width": 96, "head_width": 32, "patch_size": 10, **vision},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 4, "layers": 3},
    }


RESNET = vit() | {"vision_cfg": {"image_size": 64, "layers": [1, 2, 1, 1], "width": 8, "head_width": 32}}
CONFIGS = {
    "vit": vit(),
    "vit-quickgelu": vit() | {"quick_gelu": True},
    "vit-odd": vit(width=110, head_width=55, mlp_ratio=4.3637, patch_size=14, image_size=42),
    "resnet": RESNET,
    "resnet-quickgelu": RESNET | {"quick_gelu": True},
}


@torch.no_grad()
def redraw(model: nn.Module, seed: int = 0) -> None:
    generator = torch.Generator().manual_seed(seed)
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            fan_in = value[0].numel() if value.ndim > 1 else 4
            drawn = torch.randn(value.shape, generator=generator) * fan_in**-0.5
            value.copy_(drawn.abs() + 0.5 if "running_var" in name or (value.ndim == 1 and "weight" in name) else drawn)


def reference(config: dict[str, Any], *, custom_text: bool = False) -> nn.Module:
    kind = open_clip.model.CustomTextCLIP if custom_text else open_clip.CLIP
    model: nn.Module = kind(**config).eval()
    redraw(model)
    return model


def ours(config: dict[str, Any]) -> tuple[nn.Module, TextTransformer]:
    backbone = BackboneConfig.from_open_clip(config)
    text = TextTransformer(backbone.text, backbone.embed_dim, quick_gelu=backbone.quick_gelu, end_id=END)
    return build_image_tower(backbone).eval(), text.eval()


def captions() -> Tensor:
    ids = torch.zeros(4, 77, dtype=torch.int32)
    generator = torch.Generator().manual_seed(1)
    for row, words in enumerate((0, 3, 20, 75)):
        drawn = torch.randint(1, START, (words,), generator=generator, dtype=torch.int32)
        ids[row, : words + 2] = torch.cat([torch.tensor([START]), drawn, torch.tensor([END])])
    return ids


def agree(actual: Tensor, expected: Tensor, limit: float = 1e-5) -> None:
    assert expected.std() > 0.05  # a comparison of zeros would prove nothing
    assert (actual - expected).abs().max() <= limit * expected.abs().max()


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@torch.no_grad()
def test_both_towers_agree_with_open_clip(config: dict[str, Any]) -> None:
    theirs, (image, text) = reference(config), ours(config)
    logit_scale = load_open_clip_state_dict(image, text, theirs.state_dict())
    size = config["vision_cfg"]["image_size"]
    pixels = torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(2))
    agree(image(pixels), theirs.encode_image(pixels))  # type: ignore[operator]
    agree(text(captions()), theirs.encode_text(captions().long()))  # type: ignore[operator]
    assert logit_scale == theirs.logit_scale


@torch.no_grad()
def test_a_full_size_model_agrees_with_open_clip() -> None:
    theirs = open_clip.create_model("ViT-B-32-quickgelu", pretrained=None).eval()
    backbone = BackboneConfig.from_open_clip("ViT-B-32-quickgelu")
    image = build_image_tower(backbone).eval()
    text = TextTransformer(backbone.text, 512, quick_gelu=True, end_id=END).eval()
    load_open_clip_state_dict(image, text, theirs.state_dict())
    pixels = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    agree(image(pixels), theirs.encode_image(pixels))
    agree(text(captions()), theirs.encode_text(captions().long()))
    assert sum(p.numel() for tower in (image, text) for p in tower.parameters()) == 151_277_312  # and the logit scale


@torch.no_grad()
def test_custom_text_prefixes_half_precision_and_leftovers_load() -> None:
    config = vit()
    theirs = reference(config, custom_text=True)
    image, text = ours(config)
    weights = {f"module.{name}": value.half() for name, value in theirs.state_dict().items()}
    weights |= {
        "text.attn_mask": torch.zeros(77, 77),
        "input_resolution": torch.tensor(40),
        "vocab_size": torch.tensor(9),
    }
    load_open_clip_state_dict(image, text, weights)
    assert any(name.startswith("text.") for name in theirs.state_dict())
    assert all(value.dtype == torch.float32 for value in [*image.parameters(), *text.parameters()])
    assert torch.equal(text.text_projection, theirs.state_dict()["text.text_projection"].half().float())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda w: w.pop("visual.proj"), "visual.proj is missing"),
        (lambda w: w.pop("ln_final.bias"), "ln_final.bias is missing"),
        (lambda w: w.update({"visual.extra": torch.ones(1)}), "visual.extra is unexpected"),
        (lambda w: w.update(logit_bias=torch.ones(1)), "logit_bias is unexpected"),
        (
            lambda w: w.update(text_projection=torch.ones(64, 3)),
            r"text_projection has shape \[64, 3\] instead of \[64, 48\]",
        ),
        (lambda w: w.pop("logit_scale"), "have no logit_scale"),
    ],
)
def test_weights_of_another_model_are_refused_by_name(change: Any, words: str) -> None:
    weights = dict(open_clip.CLIP(**vit()).state_dict())
    change(weights)
    with pytest.raises(CheckpointError, match=words):
        load_open_clip_state_dict(*ours(vit()), weights)


@torch.no_grad()
def test_nothing_after_the_first_end_of_text_changes_the_embedding() -> None:
    _, text = ours(vit())
    redraw(text)
    ids = captions()[:3]
    noisy = ids.clone()
    for row, words in enumerate((0, 3, 20)):
        noisy[row, words + 2 :] = torch.randint(1, END + 1, (75 - words,), dtype=torch.int32)
    assert (noisy == END).sum() >= 3
    assert torch.allclose(unit(text(noisy)), unit(text(ids)), atol=1e-6, rtol=0)
    ids[1, 2] += 1
    assert (text(noisy) - text(ids))[1].abs().max() > 1e-3  # while a word before it does


@torch.no_grad()
def test_trimmed_ids_give_the_same_embedding() -> None:
    _, text = ours(vit())
    redraw(text)
    ids = captions()
    assert torch.allclose(unit(text(ids[:1, :2])), unit(text(ids))[:1], atol=1e-6, rtol=0)
    assert torch.allclose(unit(text(ids[:3, :22])), unit(text(ids))[:3], atol=1e-6, rtol=0)


@pytest.mark.parametrize("mask", ["none", "causal", "keys"])
@torch.no_grad()
def test_attention_agrees_with_multihead_attention(mask: str) -> None:
    theirs = nn.MultiheadAttention(24, 3, batch_first=True).eval()
    redraw(theirs)
    attention = Attention(24, 3)
    attention.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 5, 24, generator=torch.Generator().manual_seed(3))
    hidden = torch.tensor([[False, False, True, False, True], [False] * 5])
    additive, padding = None, None
    if mask == "causal":
        additive = torch.full((5, 5), float("-inf")).triu(1)
    if mask == "keys":
        padding = hidden
    given = {"none": None, "causal": causal_mask(5), "keys": key_mask(~hidden, torch.float32)}[mask]
    expected, _ = theirs(x, x, x, attn_mask=additive, key_padding_mask=padding, need_weights=False)
    assert torch.allclose(attention(x, given), expected, atol=1e-6, rtol=0)
