"""Faults that exports really have, each planted into a graph of a sound bundle, and each caught by the gate named here.

The bundle is a model whose vocabulary holds ids above the end token's and whose activations are as large as in real
towers, so that each fault can show."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch
from torch import Tensor, nn

from vtr_conformance.run import run
from vtr_export import ExportPlan, export, exporter
from vtr_export.gates import GateResult
from vtr_export.graph.fold import fold_text_tower, fold_video_tower
from vtr_export.graph.trace import trace_text, trace_video
from vtr_export.model import BackboneConfig, ModelConfig, RetrievalModel
from vtr_export.model.attention import QuickGELU
from vtr_export.model.checkpoint import load_checkpoint, save_checkpoint
from vtr_export.precision.islands import DEFAULT_RULES, Islands
from vtr_export.precision.lower import lower_precision
from vtr_export.tokenizer import write_tokenizer
from vtr_runtime.manifest import FileEntry, Manifest, file_sha256, variant_of

ADDED = 4
BACKBONE = {
    "embed_dim": 32,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "patch_size": 16, "layers": 2, "width": 32, "head_width": 16},
    "text_cfg": {"width": 32, "heads": 2, "layers": 2, "vocab_size": 49408 + ADDED},
}
FRAMES = 4
OPSET = 18
# Sums of squares of numbers of this size are beyond 65,504, the largest in fp16.
ACTIVATION = 500.0

Plant = Callable[[RetrievalModel], object]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    model = RetrievalModel(ModelConfig.from_backbone(BackboneConfig.from_open_clip(BACKBONE), frames=FRAMES)).eval()
    with torch.no_grad():
        for table in (model.text.backbone.token_embedding.weight, model.text.backbone.positional_embedding):
            table.mul_(ACTIVATION / table.std())
    path = tmp_path_factory.mktemp("checkpoint") / "best.pt"
    save_checkpoint(path, model)
    return path


@pytest.fixture(scope="module")
def sound(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Exported without gates: they are run here."""
    output = tmp_path_factory.mktemp("exported") / "bundle"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporter, "run_gates", lambda *_, **__: GateResult("not gated", ""))
        patch.setattr(exporter, "write_tokenizer", write_tokenizer_with_added_tokens)
        export(ExportPlan(output=output, checkpoint=checkpoint, debug_outputs=True))
    return output


def write_tokenizer_with_added_tokens(path: Path, **settings: Any) -> None:
    write_tokenizer(path, **settings)
    tokenizer = tokenizers.Tokenizer.from_file(str(path))
    tokenizer.add_tokens([f"<added_{n}>" for n in range(ADDED)])
    tokenizer.save(str(path))


@pytest.fixture
def bundle(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "bundle"))


def plant(bundle: Path, checkpoint: Path, fault: Plant, *, graph: str) -> None:
    """Trace a graph of the bundle anew, from a model with the fault."""
    model = load_checkpoint(checkpoint).model.eval()
    fault(model)
    path, config = bundle / f"{graph}.onnx", model.config
    if graph == "text":
        trace_text(fold_text_tower(model.text), config, path, opset=OPSET, debug_outputs=True)
    else:
        trace_video(fold_video_tower(model.video), config, path, opset=OPSET, debug_outputs=True)
    rewrite_manifest(bundle)


def rewrite_manifest(bundle: Path, **changes: Any) -> None:
    """Hash the files as they are now, so that nothing but the gates can find the fault."""
    manifest = Manifest.model_validate_json((bundle / "manifest.json").read_text())
    files = {n: FileEntry(sha256=file_sha256(bundle / n), size=(bundle / n).stat().st_size) for n in manifest.files}
    changed = manifest.model_copy(update={**changes, "files": files})
    variant = variant_of(changed.space, precision=changed.precision, opset=changed.opset)
    text = json.dumps(changed.model_copy(update={"variant": variant}).model_dump(mode="json"))
    (bundle / "manifest.json").write_text(text)


def failures(bundle: Path, checkpoint: Path) -> tuple[str, set[str], set[str]]:
    """The stage that the verdict names, all stages that failed, and the cases."""
    report = run(bundle, checkpoint=checkpoint, data="none")
    failed = [result for result in report.results if result.status == "fail"]
    first = report.verdict.removeprefix("first stage that moved: ").split(" ")[0]
    return first, {result.stage for result in failed}, {result.case for result in failed}


def test_the_sound_bundle_meets_every_gate(sound: Path, checkpoint: Path) -> None:
    assert run(sound, checkpoint=checkpoint, data="none").verdict.startswith("every gate met")


def test_a_lost_causal_mask(bundle: Path, checkpoint: Path) -> None:
    plant(bundle, checkpoint, lambda model: model.text.backbone.attn_mask.zero_(), graph="text")
    first, stages, cases = failures(bundle, checkpoint)
    assert first == "text_embedding"
    assert stages >= {"aligned", "corners", "invariance"}
    # Without the mask a token sees what stands behind it: the padding.
    assert "text, padding" in cases


def test_a_swapped_normalisation(bundle: Path, checkpoint: Path) -> None:
    def swap(model: RetrievalModel) -> None:
        mean, scale = model.video.mean.clone(), model.video.scale.clone()
        model.video.mean.copy_(1 / scale)
        model.video.scale.copy_(1 / mean)

    plant(bundle, checkpoint, swap, graph="video")
    first, stages, _ = failures(bundle, checkpoint)
    assert first == "frame_embeddings"
    assert stages >= {"video_embedding", "corners"}
    assert "invariance" not in stages  # it is wrong, but the same everywhere


def test_a_wrong_activation(bundle: Path, checkpoint: Path) -> None:
    def swap(model: RetrievalModel) -> None:
        for block in model.video.backbone.transformer.resblocks:  # type: ignore[union-attr]
            assert isinstance(block.mlp.gelu, QuickGELU)  # type: ignore[union-attr]
            block.mlp.gelu = nn.GELU()  # type: ignore[union-attr]

    plant(bundle, checkpoint, swap, graph="video")
    first, stages, _ = failures(bundle, checkpoint)
    assert first == "frame_embeddings"
    assert stages >= {"video_embedding", "corners"}


def test_an_argmax_that_picks_an_added_token(bundle: Path, checkpoint: Path) -> None:
    """The highest id is the end token's in every real sentence, so the golden vectors see nothing."""

    def highest(model: RetrievalModel) -> None:
        model.text.backbone.end_positions = lambda ids: ids.argmax(dim=1)  # type: ignore[method-assign]

    plant(bundle, checkpoint, highest, graph="text")
    first, stages, cases = failures(bundle, checkpoint)
    assert first == "corners"
    assert stages <= {"corners", "invariance"}
    assert "text, end of text at 41 to 48" in cases


def test_a_row_that_depends_on_its_batch(bundle: Path, checkpoint: Path) -> None:
    """By less than the golden vectors allow."""

    def depend(model: RetrievalModel) -> None:
        stages = model.video.stages

        def changed(frames: Tensor, mask: Tensor) -> dict[str, Tensor]:
            found = stages(frames, mask)
            later = (torch.arange(frames.shape[0]) > 0).float().unsqueeze(1)
            return found | {"video_embedding": found["video_embedding"] + 6e-6 * later}

        model.video.stages = changed  # type: ignore[method-assign]

    plant(bundle, checkpoint, depend, graph="video")
    first, stages, cases = failures(bundle, checkpoint)
    assert (first, stages) == ("invariance", {"invariance"})
    assert {"video, any batch, slot and order", "video, equal rows"} <= cases


class PlainLayerNorm(nn.Module):
    """A LayerNorm spelled out, as exporters write it for engines that have none."""

    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = norm.weight, norm.bias, norm.eps

    def forward(self, x: Tensor) -> Tensor:
        apart = x - x.mean(dim=-1, keepdim=True)
        spread = apart.pow(2).mean(dim=-1, keepdim=True)
        return apart / (spread + self.eps).sqrt() * self.weight + self.bias


def spell_out(module: nn.Module) -> None:
    for name, child in list(module.named_children()):
        if isinstance(child, nn.LayerNorm):
            setattr(module, name, PlainLayerNorm(child))
        else:
            spell_out(child)


def test_a_dropped_layer_norm_island(bundle: Path, checkpoint: Path, tmp_path: Path) -> None:
    """In fp16 the squares overflow and every sentence becomes the same; with the island it is the model."""
    plant(bundle, checkpoint, lambda model: spell_out(model.text), graph="text")
    fp32 = Path(shutil.copytree(bundle, tmp_path / "fp32"))
    lower(fp32, bundle, Islands())
    report = run(bundle, checkpoint=checkpoint, data="none")
    assert report.passed
    assert report.unproved == ""
    statistics = ("op:LayerNormalization", "op:Pow", "op:ReduceMean")
    lower(fp32, bundle, Islands(tuple(rule for rule in DEFAULT_RULES if rule not in statistics)))
    first, stages, _ = failures(bundle, checkpoint)
    assert first == "text_embedding"
    assert stages >= {"aligned", "corners"}


def lower(fp32: Path, bundle: Path, islands: Islands) -> None:
    """Write the graphs of a bundle in fp16, those of the text tower with these islands."""
    for name, kept in (("text.onnx", islands), ("video.onnx", Islands())):
        lower_precision(fp32 / name, bundle / name, precision="fp16", islands=kept)
    rewrite_manifest(bundle, precision="fp16", graph_precision="fp16")
