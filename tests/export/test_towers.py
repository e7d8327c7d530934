"""Both towers whole: pixels and ids in, unit embeddings out, in PyTorch and as exported graphs."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import open_clip
import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from vtr_export.model import AlignmentConfig, RetrievalModel, TemporalConfig, from_open_clip, redraw_zero_parameters

TINY: dict[str, Any] = {
    "embed_dim": 64,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2},
}
RESNET: dict[str, Any] = {
    **TINY,
    "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "head_width": 32},
}
HEADS = {
    "mean": TemporalConfig(),
    "transformer": TemporalConfig(kind="transformer", layers=2),
    "mstdt": TemporalConfig(kind="mstdt", scales=(2, 3)),
}
DITS = AlignmentConfig(kind="dits", steps=3, blocks=1)
T, START, END = 4, 49406, 49407


def build(temporal: str = "mean", alignment: AlignmentConfig | None = None, source: Any = None) -> RetrievalModel:
    torch.manual_seed(0)
    model = from_open_clip(source or TINY, pretrained=None, temporal=HEADS[temporal], alignment=alignment, frames=T)
    redraw_zero_parameters(model, seed=0)
    return model


def clips(batch: int, seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    frames = torch.randint(0, 256, (batch, T, 32, 32, 3), generator=generator, dtype=torch.uint8)
    mask = torch.rand(batch, T, generator=generator) > 0.3
    mask[:, 0] = True
    return frames, mask


def sentences(batch: int, length: int = 9) -> Tensor:
    ids = torch.zeros(batch, length, dtype=torch.int32)
    generator = torch.Generator().manual_seed(2)
    for row in range(batch):
        words = row % (length - 1)
        ids[row, 0], ids[row, words + 1] = START, END
        ids[row, 1 : words + 1] = torch.randint(1, START, (words,), generator=generator, dtype=torch.int32)
    return ids


@torch.no_grad()
def test_frames_are_normalised_as_open_clip_does() -> None:
    theirs = open_clip.CLIP(**TINY).eval()
    model = build()
    model.video.backbone.load_state_dict(theirs.visual.state_dict())
    frames, mask = clips(2)
    mask[:] = True
    pixels = frames.reshape(-1, 32, 32, 3).permute(0, 3, 1, 2).double() / 255
    mean, std = (
        torch.tensor(v, dtype=torch.float64).reshape(3, 1, 1)
        for v in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
    )
    features = theirs.encode_image(((pixels - mean) / std).float())
    assert (model.video.encode_frames(frames).reshape(-1, 64) - features).abs().max() < 1e-5
    per_frame = nn.functional.normalize(features, dim=-1).reshape(2, T, 64)
    expected = nn.functional.normalize(per_frame.mean(dim=1), dim=-1)
    stages = model.video.stages(frames, mask)
    assert (stages["frame_embeddings"] - per_frame).abs().max() < 1e-6
    assert (stages["video_embedding"] - expected).abs().max() < 1e-6


@pytest.mark.parametrize("source", [TINY, RESNET], ids=["vit", "resnet"])
@pytest.mark.parametrize("kind", HEADS)
@torch.no_grad()
def test_masked_frames_and_the_rest_of_the_batch_change_nothing(kind: str, source: Any) -> None:
    video = build(kind, source=source).video
    frames, mask = clips(5)
    embedding = video(frames, mask)
    noise, _ = clips(5, seed=9)
    assert (video(torch.where(mask[..., None, None, None], frames, noise), mask) - embedding).abs().max() < 1e-6
    alone = torch.cat([video(frames[i : i + 1], mask[i : i + 1]) for i in range(5)])
    assert (alone - embedding).abs().max() < 1e-6
    prefix = (torch.arange(T) < 3).expand(5, T)
    assert (video(frames, prefix) - video(frames[:, :3], prefix[:, :3])).abs().max() < 1e-6
    assert (embedding.norm(dim=-1) - 1).abs().max() < 1e-6
    assert (embedding[0] - embedding[1]).abs().max() > 1e-4


@pytest.mark.parametrize("alignment", [AlignmentConfig(), DITS], ids=["none", "dits"])
@torch.no_grad()
def test_texts_do_not_depend_on_padding_or_batch(alignment: AlignmentConfig) -> None:
    text = build(alignment=alignment).text
    ids = sentences(6, 12)
    embedding = text(ids)
    alone = torch.cat([text(ids[i : i + 1, : i + 2]) for i in range(6)])
    assert (alone - embedding).abs().max() < 1e-6
    noisy = ids.clone()
    for row in range(6):
        noisy[row, row + 2 :] = 5
    assert (text(noisy) - embedding).abs().max() < 1e-6
    assert (embedding.norm(dim=-1) - 1).abs().max() < 1e-6
    assert (embedding[0] - embedding[1]).abs().max() > 1e-4


@torch.no_grad()
def test_stages_are_named_and_forward_is_the_last() -> None:
    model = build("mstdt", DITS)
    frames, mask = clips(2)
    stages = model.video.stages(frames, mask)
    assert list(stages) == ["frame_embeddings", "video_embedding"]
    assert torch.equal(model.video(frames, mask), stages["video_embedding"])
    ids = sentences(3)
    stages = model.text.stages(ids)
    assert list(stages) == ["text_embedding", "sampler_step_3", "sampler_step_2", "sampler_step_1", "aligned"]
    assert torch.equal(stages["text_embedding"], model.text.backbone(ids))
    sampler: Any = model.text.alignment
    assert torch.equal(stages["sampler_step_3"], sampler.trajectory(stages["text_embedding"])[1])
    assert torch.equal(stages["sampler_step_1"], sampler(stages["text_embedding"]))
    assert torch.equal(model.text(ids), stages["aligned"])
    assert list(build().text.stages(ids)) == ["text_embedding", "aligned"]
    video, text = model(frames, mask, ids)
    assert torch.equal(video, model.video(frames, mask))
    assert torch.equal(text, model.text(ids))


@torch.no_grad()
def test_a_redrawn_model_really_uses_its_heads() -> None:
    frames, mask = clips(4)
    ids = sentences(4)
    full, plain = build("mstdt", AlignmentConfig(kind="dits")), build()
    full.load_state_dict(plain.state_dict(), strict=False)
    assert (full.video(frames, mask) - plain.video(frames, mask)).norm(dim=-1).min() > 0.05
    stages = full.text.stages(ids)
    assert torch.cosine_similarity(stages["text_embedding"], stages["sampler_step_1"]).max() < 0.7
    assert (full.text(ids) - plain.text(ids)).norm(dim=-1).min() > 0.05


def test_the_logit_scale_begins_and_ends_as_clips() -> None:
    model = build()
    assert model.logit_scale.item() == pytest.approx(math.log(1 / 0.07))
    with torch.no_grad():
        model.logit_scale.fill_(9.0)
    model.clamp_logit_scale()
    assert model.logit_scale.exp().item() == pytest.approx(100.0)


def test_every_weight_of_a_model_can_be_trained() -> None:
    model = build("mstdt", DITS).train()
    frames, mask = clips(3)
    video, text = model(frames, mask, sentences(3))
    (model.logit_scale.exp() * text @ video.T).softmax(dim=1).diagonal().log().sum().backward()
    without = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert without == []


def export(tower: nn.Module, inputs: tuple[Tensor, ...], axes: tuple[dict[int, Any], ...], path: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's own, about its internals
        program = torch.onnx.export(tower, inputs, dynamo=True, opset_version=18, dynamic_shapes=axes, verbose=False)
    assert program is not None
    program.save(path)
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def run(session: Any, inputs: tuple[Tensor, ...]) -> np.ndarray[Any, Any]:
    names = [node.name for node in session.get_inputs()]
    result: np.ndarray[Any, Any] = session.run(None, dict(zip(names, (x.numpy() for x in inputs), strict=True)))[0]
    return result


@pytest.mark.parametrize(("kind", "source"), [*((kind, TINY) for kind in HEADS), ("mean", RESNET)])
@torch.no_grad()
def test_the_exported_video_tower_agrees(kind: str, source: Any, tmp_path: Path) -> None:
    video = build(kind, source=source).video
    session = export(video, clips(3), ({0: Dim("batch")}, {0: Dim("batch")}), tmp_path / "video.onnx")
    assert [node.name for node in session.get_inputs()] == ["frames", "frame_mask"]
    assert [node.shape[0] for node in session.get_inputs()] == ["batch", "batch"]
    for batch in (1, 3, 8):
        inputs = clips(batch, seed=batch)
        assert np.abs(run(session, inputs) - video(*inputs).numpy()).max() < 1e-5


@pytest.mark.parametrize("alignment", [AlignmentConfig(), DITS], ids=["none", "dits"])
@torch.no_grad()
def test_the_exported_text_tower_agrees(alignment: AlignmentConfig, tmp_path: Path) -> None:
    text = build(alignment=alignment).text
    axes = ({0: Dim("batch"), 1: Dim("tokens", min=2, max=77)},)
    session = export(text, (sentences(3),), axes, tmp_path / "text.onnx")
    assert session.get_inputs()[0].name == "input_ids"
    assert session.get_inputs()[0].shape == ["batch", "tokens"]
    for batch, length in ((1, 2), (5, 9), (2, 77)):
        inputs = (sentences(batch, length),)
        assert np.abs(run(session, inputs) - text(*inputs).numpy()).max() < 1e-5
