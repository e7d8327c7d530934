"""A bundle against open_clip's own encode_image and encode_text, for three backbones, and against float64."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from torch.nn.functional import normalize

from vtr_export import ExportPlan
from vtr_export.exporter import Steps, write_core
from vtr_export.graphs import GraphParts
from vtr_export.model import from_open_clip, save_checkpoint
from vtr_export.model.checkpoint import load_checkpoint
from vtr_export.model.dits import without_evaluation_noise
from vtr_runtime import load
from vtr_runtime.model import Model

VIT: dict[str, Any] = {
    "embed_dim": 48,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 16, "head_width": 32},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
}
BACKBONES: dict[str, dict[str, Any]] = {
    "vit, exact GELU": VIT,
    "vit, QuickGELU": VIT | {"quick_gelu": True},
    "ResNet": VIT | {"vision_cfg": {"image_size": 32, "layers": [1, 2, 1, 1], "width": 8, "head_width": 32}},
}
TEXTS = ["a dog runs in the park", "", "it's what they've said, isn't it?", "a very long story about a walk " * 30]
FRAMES = 3


def draw(config: dict[str, Any]) -> Any:
    """open_clip's model with weights such that no part is the identity or nothing."""
    model = open_clip.CLIP(**config).eval()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if value.is_floating_point() and "logit_scale" not in name and "attn_mask" not in name:
                fan_in = value[0].numel() if value.ndim > 1 else 16
                drawn = torch.randn(value.shape, generator=generator) * fan_in**-0.5
                positive = (value.ndim == 1 and "weight" in name) or "running_var" in name
                value.copy_(0.75 + drawn.abs() if positive else drawn)
    return model


@pytest.fixture(scope="module", params=BACKBONES.values(), ids=BACKBONES)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Model]:
    """open_clip's model, and the runtime on a bundle made of its weights."""
    folder = tmp_path_factory.mktemp("parity")
    theirs = draw(request.param)
    torch.save(theirs.state_dict(), folder / "weights.pt")
    save_checkpoint(folder / "best.pt", from_open_clip(request.param, pretrained=folder / "weights.pt", frames=FRAMES))
    (folder / "bundle").mkdir()
    plan = ExportPlan(output=folder / "bundle", checkpoint=folder / "best.pt")
    write_core(folder / "bundle", plan, GraphParts(), load_checkpoint(folder / "best.pt"), Steps(0, lambda _: None))
    return theirs, load(folder / "bundle")


@torch.no_grad()
def test_sentences_are_open_clips(pair: tuple[Any, Model]) -> None:
    theirs, runtime = pair
    want = theirs.encode_text(open_clip.tokenize(TEXTS), normalize=True).numpy()
    assert np.ptp(want @ want.T) > 0.01  # sentences differ
    assert np.abs(runtime.encode_texts(TEXTS) - want).max() < 1e-5


@torch.no_grad()
def test_single_frames_are_open_clips(pair: tuple[Any, Model]) -> None:
    """A clip of one frame: the mean head of one frame is the frame."""
    theirs, runtime = pair
    pictures = np.random.default_rng(6).integers(0, 256, (4, 1, 32, 32, 3), dtype=np.uint8)
    want = theirs.encode_image(as_open_clip_sees(pictures[:, 0]), normalize=True).numpy()
    assert np.abs(runtime.encode_frames(pictures) - want).max() < 1e-5


@torch.no_grad()
def test_clips_are_the_mean_of_open_clips_frames(pair: tuple[Any, Model], good_clips: list[Path]) -> None:
    theirs, runtime = pair
    for clip in good_clips:
        pixels, mask, _ = runtime.read_frames(clip)
        frames = theirs.encode_image(as_open_clip_sees(pixels[mask]), normalize=True)
        want = normalize(frames.mean(dim=0), dim=0).numpy()
        assert np.abs(runtime.encode_videos([clip])[0] - want).max() < 1e-5


def as_open_clip_sees(pictures: np.ndarray[Any, Any]) -> torch.Tensor:
    """uint8 [N, S, S, 3] as preprocess_val leaves it: float32 [N, 3, S, S]."""
    mean, std = (torch.tensor(v)[:, None, None] for v in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD))
    return (torch.from_numpy(pictures).permute(0, 3, 1, 2) / 255 - mean) / std


@torch.no_grad()
def test_mstdt_and_dits_agree_with_float64(small_model: Model, small_checkpoint: Path, good_clips: list[Path]) -> None:
    """The graphs against the model in float64, whose heads are held to the papers' formulas in tests of their own
    (test_mstdt, test_dits, test_temporal, test_rerank)."""
    model = copy.deepcopy(load_checkpoint(small_checkpoint).model).double().eval()
    without_evaluation_noise(model)
    ids = small_model.tokenize(TEXTS)
    texts = model.text(torch.from_numpy(ids))
    assert texts.dtype == torch.float64
    assert np.abs(small_model.encode_ids(ids) - texts.numpy()).max() < 1e-5
    read = [small_model.read_frames(clip) for clip in good_clips]
    pixels, mask = np.stack([clip[0] for clip in read]), np.stack([clip[1] for clip in read])
    videos = model.video(torch.from_numpy(pixels), torch.from_numpy(mask))
    assert videos.dtype == torch.float64
    assert np.abs(small_model.encode_pixels(pixels, mask) - videos.numpy()).max() < 1e-5
