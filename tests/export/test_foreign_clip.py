"""The weights of OpenAI's, open_clip's and Hugging Face's CLIP, and everything that is no checkpoint."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from vtr_export.model import RetrievalModel, TemporalConfig, from_open_clip, save_checkpoint
from vtr_export.model.checkpoint import load_checkpoint, refuse_non_finite
from vtr_export.model.foreign import open_any_checkpoint
from vtr_export.model.foreign.architecture import Shapes, names_that_fit
from vtr_runtime.errors import CheckpointError, ConfigError, VtrError

CONFIG: dict[str, Any] = {
    "embed_dim": 128,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 128, "patch_size": 16},
    "text_cfg": {"context_length": 20, "vocab_size": 49408, "width": 128, "heads": 2, "layers": 2},
}
RESNET = CONFIG | {"vision_cfg": {"image_size": 32, "layers": [1, 2, 1, 1], "width": 8}}


def saved(weights: Any, path: Path) -> Path:
    torch.save(weights, path)
    return path


def refused(path: Path, words: str, kind: type[VtrError] = CheckpointError, **options: Any) -> None:
    with pytest.raises(kind, match=words) as caught:
        open_any_checkpoint(path, **options)
    assert "\n" not in str(caught.value)


def zeros(name: str, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Weights of a full-size model that take no room in memory or on the disk."""
    with torch.device("meta"):
        theirs = open_clip.CLIP(**open_clip.get_model_config(name))
    return {key: torch.zeros((), dtype=dtype).expand(value.shape) for key, value in theirs.state_dict().items()}


@pytest.mark.parametrize("name", ["ViT-B-32", "ViT-L-14-336", "RN50x4", "ViT-bigG-14"])
def test_full_size_weights_are_named(name: str) -> None:
    assert names_that_fit(Shapes.of_weights(zeros(name))) == [name, f"{name}-quickgelu"]


@pytest.mark.parametrize("config", [CONFIG, RESNET], ids=["vit", "resnet"])
@torch.no_grad()
def test_openais_own_weights_have_quick_gelu(config: dict[str, Any], tmp_path: Path) -> None:
    torch.manual_seed(2)
    theirs = open_clip.CLIP(**config).eval()
    scalars = {"input_resolution": torch.tensor(32), "context_length": 20, "vocab_size": torch.tensor(49408)}
    path = saved({**theirs.state_dict(), **scalars}, tmp_path / "weights.pt")
    model, words = open_any_checkpoint(path, frames=4)
    generator = torch.Generator().manual_seed(1)
    frames = torch.randint(0, 256, (3, 4, 32, 32, 3), generator=generator, dtype=torch.uint8)
    ids = torch.tensor([[49406, 320, 2368, 49407] + [0] * 16], dtype=torch.int32)
    assert torch.allclose(model.text(ids), theirs.encode_text(ids.long(), normalize=True), atol=1e-6)
    pixels = (frames.flatten(0, 1).permute(0, 3, 1, 2) - model.video.mean) * model.video.scale
    assert torch.allclose(model.video.encode_frames(frames).flatten(0, 1), theirs.encode_image(pixels), atol=1e-5)
    assert words.startswith("OpenAI, on custom (32 pixels, D 128, QuickGELU)")
    with pytest.raises(ConfigError, match="a file of OpenAI's, was trained with quick_gelu=True"):
        from_open_clip(config | {"quick_gelu": False}, pretrained=path)
    heads = config | {"text_cfg": config["text_cfg"] | {"heads": 4}}
    with pytest.raises(ConfigError, match="attention heads"):
        from_open_clip(heads, pretrained=path)


def test_openais_archives_hold_code_and_the_named_command_takes_the_weights_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Tiny(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.proj = nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.proj(x)  # type: ignore[no-any-return]

    path = tmp_path / "ViT-B-32.pt"
    torch.jit.save(torch.jit.trace(Tiny(), torch.ones(1, 2)), path)  # type: ignore[no-untyped-call]
    with pytest.raises(CheckpointError, match="is a TorchScript archive, which holds code, and was not run") as caught:
        open_any_checkpoint(path)
    command = re.search(r'python -c "(.*)"$', str(caught.value))
    assert command
    monkeypatch.chdir(tmp_path)
    exec(command[1])
    assert torch.load("weights.pt", weights_only=True)["proj.weight"].shape == (2, 2)
    with pytest.raises(CheckpointError, match="TorchScript"):
        from_open_clip(CONFIG, pretrained=path)


@pytest.mark.parametrize("custom_text", [False, True])
def test_open_clips_weights_need_a_name(custom_text: bool, tmp_path: Path) -> None:
    kind = open_clip.model.CustomTextCLIP if custom_text else open_clip.CLIP
    config = open_clip.get_model_config("ViT-S-32")
    path = tmp_path / "weights.safetensors"
    save_file(kind(**config).state_dict(), path)
    words = (
        r"GELU or QuickGELU; say which: --open-clip NAME --pretrained .*weights.safetensors \(its shapes fit ViT-S-32\)"
    )
    refused(path, words, ConfigError)
    model, found = open_any_checkpoint(path, model="ViT-S-32", frames=2)
    assert model.config.backbone.name == "ViT-S-32"
    assert found.startswith("open_clip, on ViT-S-32 (224 pixels, D 384, GELU)")


def test_both_activations_are_offered(tmp_path: Path) -> None:
    path = saved(zeros("ViT-B-32"), tmp_path / "weights.pt")
    refused(path, r"\(its shapes fit ViT-B-32, ViT-B-32-quickgelu\)", ConfigError)
    refused(path, "its embed_dim is 512, not 768; its shapes fit ViT-B-32", ConfigError, model="ViT-L-14")
    path = saved(open_clip.CLIP(**CONFIG).state_dict(), tmp_path / "other.pt")
    refused(path, "its shapes fit no model of open_clip's; give --open-clip a .json file", ConfigError)


@torch.no_grad()
def drawn() -> Any:
    """A CLIP whose biases, zero at first, are drawn too."""
    torch.manual_seed(4)
    model = open_clip.CLIP(**CONFIG).eval()
    for value in model.parameters():
        value.add_(0.05 * torch.randn_like(value))
    return model


def hugging_face(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """open_clip's weights by the names that transformers' convert_clip_original_pytorch_to_hf.py gives them."""
    renamed = {
        "logit_scale": weights["logit_scale"],
        "visual_projection.weight": weights["visual.proj"].T.contiguous(),
        "text_projection.weight": weights["text_projection"].T.contiguous(),
        "vision_model.embeddings.class_embedding": weights["visual.class_embedding"],
        "vision_model.embeddings.patch_embedding.weight": weights["visual.conv1.weight"],
        "vision_model.embeddings.position_embedding.weight": weights["visual.positional_embedding"],
        "vision_model.embeddings.position_ids": torch.arange(5),
        "text_model.embeddings.token_embedding.weight": weights["token_embedding.weight"],
        "text_model.embeddings.position_embedding.weight": weights["positional_embedding"],
    }
    for part in ("weight", "bias"):
        renamed[f"vision_model.pre_layrnorm.{part}"] = weights[f"visual.ln_pre.{part}"]
        renamed[f"vision_model.post_layernorm.{part}"] = weights[f"visual.ln_post.{part}"]
        renamed[f"text_model.final_layer_norm.{part}"] = weights[f"ln_final.{part}"]
        for tower, source in (("vision_model", "visual.transformer"), ("text_model", "transformer")):
            for n in range(2):
                ours, block = f"{tower}.encoder.layers.{n}.", f"{source}.resblocks.{n}."
                for letter, rows in zip("qkv", weights[f"{block}attn.in_proj_{part}"].chunk(3), strict=True):
                    renamed[f"{ours}self_attn.{letter}_proj.{part}"] = rows.clone()
                renamed[f"{ours}self_attn.out_proj.{part}"] = weights[f"{block}attn.out_proj.{part}"]
                renamed[f"{ours}layer_norm1.{part}"] = weights[f"{block}ln_1.{part}"]
                renamed[f"{ours}layer_norm2.{part}"] = weights[f"{block}ln_2.{part}"]
                renamed[f"{ours}mlp.fc1.{part}"] = weights[f"{block}mlp.c_fc.{part}"]
                renamed[f"{ours}mlp.fc2.{part}"] = weights[f"{block}mlp.c_proj.{part}"]
    return renamed


@torch.no_grad()
def test_hugging_faces_weights_are_converted(tmp_path: Path) -> None:
    theirs = drawn()
    path = tmp_path / "model.safetensors"
    save_file(hugging_face(theirs.state_dict()), path)
    refused(path, "by the names of Hugging Face, which do not say", ConfigError)
    model = from_open_clip(CONFIG, pretrained=path)
    ours = model.state_dict()
    for name, value in theirs.state_dict().items():
        own = (
            f"video.backbone.{name.removeprefix('visual.')}" if name.startswith("visual.") else f"text.backbone.{name}"
        )
        assert torch.equal(ours["logit_scale" if name == "logit_scale" else own], value), name


def test_hugging_faces_weights_without_a_part_are_refused(tmp_path: Path) -> None:
    weights = hugging_face(drawn().state_dict())
    key = weights.pop("text_model.encoder.layers.1.self_attn.k_proj.bias")
    refused(saved(weights, tmp_path / "a.bin"), r"layers.1.self_attn.k_proj.bias is missing; copy it again")
    weights["text_model.encoder.layers.1.self_attn.k_proj.bias"] = key
    del weights["visual_projection.weight"]
    weights["vision_model.head.probe"] = torch.zeros(1)
    with pytest.raises(CheckpointError, match=r"visual.proj is missing"):
        from_open_clip(CONFIG, pretrained=saved(weights, tmp_path / "b.bin"))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({}, "it holds no state dict"),
        ([1, 2], "it holds no state dict"),
        ({"state_dict": {}}, "it holds no state dict"),
        ({"epoch": 3}, r"it holds no state dict \('epoch' is a int\)"),
        ({1: torch.ones(1)}, r"it holds no state dict \('1' is a Tensor\)"),
        (
            {f"encoder.{n}.weight": torch.ones(1) for n in range(7)},
            r"it holds 7 tensors, named encoder.0.weight, .*encoder.4.weight, \.\.\.; give one of vtr-train, CLIP4Clip",
        ),
        ({"visual.proj": torch.ones(2, 2)}, "names its weights as open_clip does, but visual.conv1.weight is missing"),
    ],
)
def test_anything_else_is_refused_with_what_was_found(content: Any, words: str, tmp_path: Path) -> None:
    refused(saved(content, tmp_path / "other.pt"), words)


def test_missing_and_torn_files_are_refused(tmp_path: Path) -> None:
    for name in ("absent.pt", "absent.safetensors"):
        refused(tmp_path / name, f"{name} does not exist")
    (tmp_path / "torn.pt").write_bytes(b"PK\x03\x04 and nothing else")
    refused(tmp_path / "torn.pt", "torn.pt is damaged or no checkpoint")


def test_our_own_checkpoint_with_weights_that_are_not_finite_is_refused(tmp_path: Path) -> None:
    model: RetrievalModel = from_open_clip(CONFIG, pretrained=None, temporal=TemporalConfig(kind="lstm"), frames=2)
    with torch.no_grad():
        model.text.backbone.ln_final.weight[5] = float("nan")
    path = tmp_path / "best.pt"
    save_checkpoint(path, model)
    for opened in (load_checkpoint, open_any_checkpoint):
        with pytest.raises(
            CheckpointError,
            match=r"best.pt cannot be used: 1 of the 128 values of text.backbone.ln_final.weight are NaN",
        ):
            opened(path)


def test_only_weights_that_stay_finite_in_float32_pass() -> None:
    refuse_non_finite({"a": torch.ones(2), "b": torch.tensor([1]), "c": torch.tensor(6e4, dtype=torch.float16)})
    with pytest.raises(CheckpointError, match="1 of the 1 values of wide"):
        refuse_non_finite({"wide": torch.tensor(1e300, dtype=torch.float64)})
