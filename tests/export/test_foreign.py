"""CLIP4Clip checkpoints against its forward written here on open_clip's own towers, and what is refused."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from vtr_export.model import from_open_clip, save_checkpoint
from vtr_export.model.foreign import open_any_checkpoint
from vtr_runtime.errors import CheckpointError, ConfigError, VtrError

D, T, LAYERS, HEADS = 128, 4, 2, 2
START, END = 49406, 49407
CONFIG: dict[str, Any] = {
    "embed_dim": D,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": D, "patch_size": 16},
    "text_cfg": {"context_length": 20, "vocab_size": 49408, "width": D, "heads": HEADS, "layers": 2},
}


class QuickGELU(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class Block(nn.Module):
    """A block of CLIP4Clip's transformerClip; its LayerNorm has 1e-12 where CLIP's has 1e-5."""

    def __init__(self) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(D, HEADS)
        self.ln_1, self.ln_2 = nn.LayerNorm(D, eps=1e-12), nn.LayerNorm(D, eps=1e-12)
        self.mlp = nn.Sequential(
            OrderedDict(c_fc=nn.Linear(D, 4 * D), gelu=QuickGELU(), c_proj=nn.Linear(4 * D, D)),
        )

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False, attn_mask=mask.repeat(HEADS, 1, 1))[0]
        return x + self.mlp(self.ln_2(x))  # type: ignore[no-any-return]


class Clip4Clip(nn.Module):
    """CLIP4Clip (arXiv 2104.08860, section 3.3) under its own parameter names, from raw pixels and ids."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.clip: Any = open_clip.CLIP(**CONFIG)
        if kind != "meanP":
            self.frame_position_embeddings = nn.Embedding(20, D)
        if kind == "seqTransf":
            self.transformerClip = nn.Module()
            self.transformerClip.resblocks = nn.ModuleList(Block() for _ in range(LAYERS))
        if kind == "seqLSTM":
            self.lstm_visual = nn.LSTM(D, D, batch_first=True)

    def video(self, frames: Tensor, mask: Tensor) -> Tensor:
        pixels = frames.flatten(0, 1).permute(0, 3, 1, 2) / 255.0
        pixels = (pixels - torch.tensor(open_clip.OPENAI_DATASET_MEAN).view(3, 1, 1)) / torch.tensor(
            open_clip.OPENAI_DATASET_STD
        ).view(3, 1, 1)
        original = features = self.clip.encode_image(pixels).reshape(*mask.shape, D)
        if self.kind == "seqTransf":
            x = (features + self.frame_position_embeddings(torch.arange(mask.shape[1]))).permute(1, 0, 2)
            hidden = (1.0 - mask.float()[:, None]) * -1e6
            for block in self.transformerClip.resblocks:  # type: ignore[union-attr]
                x = block(x, hidden.expand(-1, mask.shape[1], -1))
            features = x.permute(1, 0, 2) + original
        if self.kind == "seqLSTM":
            packed = pack_padded_sequence(features, mask.sum(dim=1), batch_first=True, enforce_sorted=False)
            states, _ = pad_packed_sequence(self.lstm_visual(packed)[0], batch_first=True, total_length=mask.shape[1])
            features = states + original
        features = features / features.norm(dim=-1, keepdim=True) * mask[..., None]
        pooled = features.sum(dim=1) / mask.sum(dim=1, keepdim=True)
        return pooled / pooled.norm(dim=-1, keepdim=True)

    def text(self, ids: Tensor) -> Tensor:
        return F.normalize(self.clip.encode_text(ids.long()), dim=-1)


@torch.no_grad()
def clip4clip(kind: str) -> Clip4Clip:
    torch.manual_seed(5)
    model = Clip4Clip(kind).eval()
    for name, value in model.named_parameters():
        if not name.startswith("clip.") or "bias" in name:
            value.add_(0.05 * torch.randn_like(value))  # biases begin at zero
    model.clip.logit_scale.fill_(4.2)
    # Projections as long as those of OpenAI's ViT-B/32, about 10.
    model.clip.visual.proj.mul_(10 / model.clip.encode_image(torch.randn(4, 3, 32, 32)).norm(dim=-1).mean())
    return model


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    """Frames, a mask that ends early as CLIP4Clip's do, and ids."""
    generator = torch.Generator().manual_seed(1)
    frames = torch.randint(0, 256, (3, T, 32, 32, 3), generator=generator, dtype=torch.uint8)
    mask = torch.arange(T) < torch.tensor([[T], [2], [1]])
    ids = torch.zeros(3, 20, dtype=torch.int32)
    for row, words in enumerate((1, 7, 18)):
        drawn = torch.randint(1, START, (words,), generator=generator, dtype=torch.int32)
        ids[row, : words + 2] = torch.cat([torch.tensor([START]), drawn, torch.tensor([END])])
    return frames, mask, ids


def saved(weights: Any, path: Path) -> Path:
    torch.save(weights, path)
    return path


def refused(path: Path, words: str, kind: type[VtrError] = CheckpointError, **options: Any) -> None:
    with pytest.raises(kind, match=words) as caught:
        open_any_checkpoint(path, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["meanP", "seqTransf", "seqLSTM"])
@torch.no_grad()
def test_clip4clip_embeds_as_its_own_forward(kind: str, tmp_path: Path) -> None:
    theirs = clip4clip(kind)
    frames, mask, ids = inputs()
    model, words = open_any_checkpoint(saved(theirs.state_dict(), tmp_path / "pytorch_model.bin.4"), frames=T)
    # One by one: in a batch, CLIP4Clip's seqTransf gives most heads the mask of another clip, as Block does here.
    expected = torch.cat([theirs.video(frames[b : b + 1], mask[b : b + 1]) for b in range(len(frames))])
    assert expected.std(dim=0).mean() > 0.01  # the clips differ
    # Their blocks' smaller epsilon is felt at 1e-6, a wrong order, mask or residual at 1e-2 and more.
    assert (model.video(frames, mask) - expected).abs().max() < 2e-6
    assert (model.text(ids) - theirs.text(ids)).abs().max() < 1e-6
    assert model.logit_scale == theirs.clip.logit_scale
    assert not model.training
    assert words.startswith(f"CLIP4Clip, {kind}")
    assert "QuickGELU" in words
    assert ("frame_position_embeddings.weight" in words) == (kind == "seqLSTM")


@torch.no_grad()
def test_an_opened_model_is_saved_and_read_like_any_other(tmp_path: Path) -> None:
    model, _ = open_any_checkpoint(saved(clip4clip("seqTransf").state_dict(), tmp_path / "theirs.bin"), frames=T)
    save_checkpoint(tmp_path / "ours.pt", model)
    again, words = open_any_checkpoint(tmp_path / "ours.pt")
    frames, mask, _ = inputs()
    assert torch.equal(again.video(frames, mask), model.video(frames, mask))
    assert words.startswith("vtr-train, temporal transformer, alignment none, on custom")
    refused(tmp_path / "ours.pt", "leave ViT-B-32 out", ConfigError, model="ViT-B-32")


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model", "model_state_dict"])
@torch.no_grad()
def test_wrappers_prefixes_half_precision_and_unused_tables(wrapper: str | None, tmp_path: Path) -> None:
    theirs = clip4clip("meanP")
    weights = {f"module.{name}": value.half() for name, value in theirs.state_dict().items()}
    weights["module.frame_position_embeddings.weight"] = torch.zeros(20, D)
    content: Any = {wrapper: weights, "epoch": 3, "optimizer": {"lr": 1e-4}} if wrapper else weights
    model, words = open_any_checkpoint(saved(content, tmp_path / "best.pth"), frames=T)
    theirs.half().float()
    frames, mask, _ = inputs()
    assert (model.video(frames, mask) - theirs.video(frames, mask)).abs().max() < 1e-6
    assert "float16 and float32" in words
    assert "left out, as meanP never reads it: frame_position_embeddings.weight" in words


def test_a_full_size_clip4clip_file_needs_no_name(tmp_path: Path) -> None:
    with torch.device("meta"):
        theirs = open_clip.CLIP(**open_clip.get_model_config("ViT-B-32")).half()
    zero = torch.zeros((), dtype=torch.float16)  # expanded, it takes no room in memory or on the disk
    weights = {f"clip.{key}": zero.expand(value.shape) for key, value in theirs.state_dict().items()}
    path = saved(weights, tmp_path / "best.bin")
    model, words = open_any_checkpoint(path)
    assert words == "CLIP4Clip, meanP, on ViT-B-32-quickgelu (224 pixels, D 512, QuickGELU), 151.3 M weights in float16"
    assert model.config.frames.count == 12
    refused(
        path,
        "CLIP4Clip's, was trained with quick_gelu=True; use the model name ViT-B-32-quickgelu",
        ConfigError,
        model="ViT-B-32",
    )
    refused(path, r"its patch_size is 32, not 16; its shapes fit ViT-B-32, ", ConfigError, model="ViT-B-16")


CHANGES: dict[str, tuple[str, Callable[[dict[str, Tensor]], Any], str]] = {
    "pairwise": (
        "meanP",
        lambda w: w.update({"cross.pooler.dense.bias": torch.ones(2), "similarity_dense.bias": torch.ones(1)}),
        "head tightTransf .* scores each pair",
    ),
    "3d": ("meanP", lambda w: w.update({"clip.visual.conv2.weight": torch.ones(1)}), "linear_patch '3d'"),
    "no patches": ("meanP", lambda w: w.pop("clip.visual.conv1.weight"), "but clip.visual.conv1.weight is missing"),
    "flat patches": (
        "meanP",
        lambda w: w.update({"clip.visual.conv1.weight": torch.ones(3)}),
        r"clip.visual.conv1.weight has shape \[3\] instead of 4 axes",
    ),
    "no square": (
        "meanP",
        lambda w: w.update({"clip.visual.positional_embedding": torch.ones(4, D)}),
        "clip.visual.positional_embedding has 4 rows, which are not a square and one",
    ),
    "tower short": ("meanP", lambda w: w.pop("clip.ln_final.bias"), "clip.ln_final.bias is missing"),
    "tower long": ("meanP", lambda w: w.update({"clip.extra": torch.ones(1)}), "clip.extra is unexpected"),
    "tower wide": (
        "meanP",
        lambda w: w.update({"clip.visual.proj": torch.ones(D, 3)}),
        r"clip.visual.proj has shape \[128, 3\] instead of \[128, 128\]",
    ),
    "no scale": ("meanP", lambda w: w.pop("clip.logit_scale"), "no clip.logit_scale of one value"),
    "two scales": ("meanP", lambda w: w.update({"clip.logit_scale": torch.ones(2)}), "no clip.logit_scale of one"),
    "a fork": ("meanP", lambda w: w.update({"global_mat_weight": torch.ones(2)}), "global_mat_weight is unexpected"),
    "both heads": (
        "seqTransf",
        lambda w: w.update({"lstm_visual.bias_ih_l0": torch.ones(2)}),
        "lstm_visual.bias_ih_l0 is unexpected",
    ),
    "no positions": (
        "seqTransf",
        lambda w: w.pop("frame_position_embeddings.weight"),
        "not CLIP4Clip's seqTransf.*: frame_position_embeddings.weight is missing",
    ),
    "block short": (
        "seqTransf",
        lambda w: w.pop("transformerClip.resblocks.1.attn.in_proj_bias"),
        "transformerClip.resblocks.1.attn.in_proj_bias is missing",
    ),
    "two layers": (
        "seqLSTM",
        lambda w: w.update({"lstm_visual.weight_ih_l1": torch.ones(2)}),
        "not CLIP4Clip's seqLSTM.*: lstm_visual.weight_ih_l1 is unexpected",
    ),
    "nan": (
        "meanP",
        lambda w: w["clip.text_projection"][0, :3].fill_(float("nan")),
        "3 of the 16384 values of clip.text_projection are NaN or infinite; take",
    ),
    "infinite": (
        "seqLSTM",
        lambda w: (w["lstm_visual.bias_ih_l0"].fill_(float("inf")), w["clip.ln_final.bias"].fill_(float("nan"))),
        r"128 of the 128 values of clip.ln_final.bias .* \(as are some of lstm_visual.bias_ih_l0\);",
    ),
}


@pytest.mark.parametrize(("kind", "change", "words"), CHANGES.values(), ids=CHANGES)
def test_what_is_not_clip4clip_is_refused_by_name(
    kind: str, change: Callable[[dict[str, Tensor]], Any], words: str, tmp_path: Path
) -> None:
    weights = {name: value.clone() for name, value in clip4clip(kind).state_dict().items()}
    change(weights)
    refused(saved(weights, tmp_path / "best.bin"), words)


def test_more_frames_than_positions_are_refused(tmp_path: Path) -> None:
    path = saved(clip4clip("seqTransf").state_dict(), tmp_path / "best.bin")
    refused(path, "positions for 20 frames, not for 21; take at most 20 frames", ConfigError, frames=21)
    assert open_any_checkpoint(path, frames=20)[0].config.frames.count == 20


def test_a_clip4clip_file_is_no_stock_clip(tmp_path: Path) -> None:
    path = saved(clip4clip("seqLSTM").state_dict(), tmp_path / "best.bin")
    with pytest.raises(CheckpointError, match=r"temporal head of its own; export it with --ckpt .*best.bin"):
        from_open_clip(CONFIG, pretrained=path)
