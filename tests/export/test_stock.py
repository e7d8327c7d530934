"""Models from open_clip's weights: a file, a tag, or random by request."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import open_clip
import open_clip.pretrained
import pytest
import torch
from safetensors.torch import save_file

from vtr_export.model import AlignmentConfig, TemporalConfig, from_open_clip
from vtr_runtime.errors import CheckpointError, ConfigError

TINY: dict[str, Any] = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 32, "patch_size": 16},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 1, "layers": 1},
}
TAG: dict[str, Any] = {
    "url": "x",
    "hf_hub": "",
    "mean": (0.4, 0.5, 0.6),
    "std": (0.1, 0.2, 0.3),
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}


@pytest.fixture
def theirs() -> Any:
    torch.manual_seed(3)
    model = open_clip.CLIP(**TINY).eval()
    with torch.no_grad():
        model.logit_scale.fill_(4.5)
    return model


@pytest.mark.parametrize("form", ["safetensors", "pt", "training"])
@torch.no_grad()
def test_a_file_of_weights_gives_open_clips_embeddings(theirs: Any, tmp_path: Path, form: str) -> None:
    path = tmp_path / f"weights.{'safetensors' if form == 'safetensors' else 'pt'}"
    if form == "safetensors":
        save_file(theirs.state_dict(), path)
    else:
        torch.save(theirs.state_dict() if form == "pt" else {"epoch": 1, "state_dict": theirs.state_dict()}, path)
    model = from_open_clip(TINY, pretrained=path, frames=2)
    ids = torch.tensor([[49406, 320, 2368, 49407] + [0] * 12], dtype=torch.int32)
    assert torch.allclose(model.text(ids), theirs.encode_text(ids.long(), normalize=True), atol=1e-6)
    assert model.logit_scale == theirs.logit_scale
    assert not model.training


@torch.no_grad()
def test_the_head_begins_as_the_loaded_text_tower(theirs: Any, tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save(theirs.state_dict(), path)
    temporal = TemporalConfig(kind="mstdt", scales=(2, 3))
    model: Any = from_open_clip(
        TINY, pretrained=path, temporal=temporal, alignment=AlignmentConfig(kind="dits"), frames=4
    )
    source = theirs.transformer.resblocks[0].mlp.c_fc.weight
    assert torch.equal(model.video.temporal.long.transformer.resblocks[0].mlp.c_fc.weight, source)
    assert torch.equal(model.video.temporal.short_positions, theirs.positional_embedding[:3])


def test_random_weights_are_asked_for() -> None:
    with pytest.raises(TypeError, match="pretrained"):
        from_open_clip(TINY)  # type: ignore[call-arg]
    assert from_open_clip(TINY, pretrained=None).config.frames.count == 12


def test_a_tag_brings_its_weights_and_its_pixels(theirs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "weights.pt"
    torch.save(theirs.state_dict(), path)
    monkeypatch.setattr(open_clip.pretrained, "get_pretrained_cfg", lambda *_: TAG)
    monkeypatch.setattr(open_clip.pretrained, "download_pretrained", lambda *_: str(path))
    model = from_open_clip(TINY, pretrained="some-tag")
    assert model.config.frames.mean == (0.4, 0.5, 0.6)
    assert model.config.backbone.std == (0.1, 0.2, 0.3)
    assert torch.allclose(model.video.mean.flatten(), torch.tensor([102.0, 127.5, 153.0]))


def test_an_unknown_tag_and_a_missing_file_are_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"'nope' is neither a file nor a tag of ViT-B-32; its tags are .*laion2b_s34b_b79k"
    ):
        from_open_clip("ViT-B-32", pretrained="nope")
    with pytest.raises(ConfigError, match=r"'absent.pt' is neither a file nor a tag of custom; it has no tags"):
        from_open_clip(TINY, pretrained="absent.pt")


def test_a_tag_of_another_activation_is_refused() -> None:
    with pytest.raises(
        ConfigError, match="openai was trained with quick_gelu=True; use the model name ViT-B-32-quickgelu"
    ):
        from_open_clip("ViT-B-32", pretrained="openai")
    assert open_clip.pretrained.get_pretrained_cfg("ViT-B-32-quickgelu", "openai")["quick_gelu"]


@pytest.mark.parametrize(("key", "value"), [("interpolation", "bilinear"), ("resize_mode", "squash")])
def test_a_tag_of_other_pixels_is_refused(monkeypatch: pytest.MonkeyPatch, key: str, value: str) -> None:
    monkeypatch.setattr(open_clip.pretrained, "get_pretrained_cfg", lambda *_: {**TAG, key: value})
    with pytest.raises(ConfigError, match=f"some-tag prepares images with {key} '{value}'"):
        from_open_clip(TINY, pretrained="some-tag")


def test_a_failed_download_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> str:
        raise OSError("no route to host\nand a long story")

    monkeypatch.setattr(open_clip.pretrained, "download_pretrained", fail)
    with pytest.raises(
        CheckpointError, match=r"could not be downloaded \(OSError: no route to host\); .* give the file"
    ) as caught:
        from_open_clip("ViT-B-32", pretrained="laion2b_s34b_b79k")
    assert "\n" not in str(caught.value)


def test_bad_files_are_refused(theirs: Any, tmp_path: Path) -> None:
    def refused(name: str, words: str) -> None:
        with pytest.raises(CheckpointError, match=words) as caught:
            from_open_clip(TINY, pretrained=tmp_path / name)
        assert "\n" not in str(caught.value)

    (tmp_path / "torn.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{}")
    refused("torn.safetensors", "torn.safetensors: not readable as safetensors")
    (tmp_path / "torn.pt").write_bytes(b"PK\x03\x04 and nothing else")
    refused("torn.pt", "torn.pt is damaged or no checkpoint")
    torch.save([1, 2], tmp_path / "list.pt")
    refused("list.pt", "list.pt: it holds no state dict")
    torch.save({"epoch": 3}, tmp_path / "empty.pt")
    refused("empty.pt", "empty.pt: it holds no state dict")
    weights = dict(theirs.state_dict())
    weights["visual.proj"] = torch.ones(32, 16)
    torch.save(weights, tmp_path / "other.pt")
    refused("other.pt", r"other.pt: the weights are of another model: visual.proj has shape \[32, 16\]")
    with zipfile.ZipFile(tmp_path / "script.pt", "w") as archive:  # the layout of OpenAI's own TorchScript files
        archive.writestr("script/constants.pkl", b"")
    refused("script.pt", "script.pt is damaged or no checkpoint")
