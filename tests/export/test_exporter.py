"""`vtr-export` from its options to a published bundle, and every way in which it must refuse."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from vtr_export import ExportPlan, export, gates
from vtr_export.cli import main
from vtr_export.model.checkpoint import load_checkpoint
from vtr_runtime.bundle import open_bundle
from vtr_runtime.errors import GateError, VtrError


def vtr_export(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_the_manifest_is_the_checkpoints(small_bundle: Path, small_checkpoint: Path) -> None:
    manifest, checkpoint = open_bundle(small_bundle).manifest, load_checkpoint(small_checkpoint)
    assert manifest.weights_sha256 == checkpoint.weights_sha256
    assert manifest.model == checkpoint.config.model_dump(mode="json")
    assert manifest.frames == checkpoint.config.frames
    assert (manifest.sampler.kind, manifest.sampler.steps, manifest.sampler.noise) == ("dits", 3, "none")
    assert manifest.versions["torch"] == torch.__version__.split("+")[0]


def test_golden_vectors_are_small_and_carry_their_licences(small_bundle: Path) -> None:
    files = list((small_bundle / "golden").rglob("*"))
    assert sum(path.stat().st_size for path in files) < 10e6
    licences = (small_bundle / "golden" / "media" / "LICENCES.md").read_text()
    media = [path for path in (small_bundle / "golden" / "media").iterdir() if path.suffix != ".md"]
    assert len(media) >= 3
    for path in media:
        assert path.name in licences
        assert path.stat().st_size <= 200_000


def test_the_readme_states_the_verdict(small_bundle: Path) -> None:
    text = (small_bundle / "README.md").read_text()
    assert "every gate met" in text
    assert open_bundle(small_bundle).manifest.space[:16] in text


def test_a_gate_that_is_not_met_publishes_nothing(
    small_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Conformance itself runs; the bundle under it is changed after the exporter's own checks."""
    from vtr_export import exporter

    real = exporter.write_golden

    def spoiled(model: torch.nn.Module, *arguments: object, **more: object) -> list[str]:
        with torch.no_grad():
            model.text.backbone.ln_final.weight.mul_(1.01)  # type: ignore[union-attr]
        return real(model, *arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(exporter, "write_golden", spoiled)
    with pytest.raises(GateError, match=r"first stage that moved: (text_embedding|aligned).*nothing was published"):
        export(ExportPlan(output=tmp_path / "bundle", checkpoint=small_checkpoint))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle.failed"]
    lines = (tmp_path / "bundle.failed" / "conformance.jsonl").read_text().splitlines()
    assert any(json.loads(line).get("status") == "fail" for line in lines)


def test_a_child_that_dies_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(VtrError, match=r"before it could judge: error: .*is not a bundle"):
        gates.run_gates(tmp_path, tmp_path / "none.pt", data=None, failed=tmp_path / "failed")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "give either --ckpt best.pt"),
        (["--ckpt", "best.pt", "--open-clip", "RN50"], "give either --ckpt best.pt"),
        (["--ckpt", "best.pt", "--pretrained", "openai"], "--pretrained goes with --open-clip"),
        (["--open-clip", "RN50"], "needs --pretrained"),
        (["--ckpt", "nowhere.pt"], "does not exist"),
        (["--ckpt", __file__, "--target", "coreml"], "there is no target 'coreml'; choose from: onnx"),
    ],
)
def test_wrong_use_is_refused_before_anything_begins(tmp_path: Path, arguments: list[str], words: str) -> None:
    done = vtr_export(*arguments, "-o", tmp_path / "bundle")
    assert done.exit_code == 2
    assert words in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_evaluation_data_must_be_there(small_checkpoint: Path, tmp_path: Path) -> None:
    done = vtr_export("--ckpt", small_checkpoint, "--eval-data", tmp_path / "none", "-o", tmp_path / "bundle")
    assert done.exit_code == 2
    assert "--eval-data" in done.stderr


def test_an_output_that_is_there_stays_as_it_was(small_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "mine.txt").write_text("mine")
    done = vtr_export("--ckpt", small_checkpoint, "-o", tmp_path / "bundle")
    assert done.exit_code == 2
    assert "--overwrite" in done.stderr
    assert (tmp_path / "bundle" / "mine.txt").read_text() == "mine"


def test_a_file_that_is_no_checkpoint_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "best.pt").write_bytes(b"not a checkpoint")
    done = vtr_export("--ckpt", tmp_path / "best.pt", "-o", tmp_path / "bundle")
    assert done.exit_code == 1
    assert "Traceback" not in done.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.pt"]


def test_a_backbone_outside_the_family_is_refused(tmp_path: Path) -> None:
    done = vtr_export("--open-clip", "ViT-B-16-SigLIP", "--pretrained", "webli", "-o", tmp_path / "bundle")
    assert done.exit_code == 2
    assert "SigLIP" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_plan_is_printed_and_nothing_done(small_checkpoint: Path, tmp_path: Path) -> None:
    done = vtr_export("--ckpt", small_checkpoint, "-o", tmp_path / "bundle", "--dry-run", "--json")
    assert done.exit_code == 0
    assert json.loads(done.stdout)["targets"] == ["onnx"]
    assert list(tmp_path.iterdir()) == []


def test_stock_clip_from_a_weights_file(good_clips: list[Path], tmp_path: Path) -> None:
    """open_clip's own model of our small size, saved as a file, exported without training and held to open_clip."""
    import numpy as np
    import open_clip

    from vtr_runtime import load

    config = {
        "embed_dim": 48,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 16, "head_width": 32},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
    }
    torch.manual_seed(0)
    model = open_clip.CLIP(**config).eval()
    weights, settings = tmp_path / "weights.pt", tmp_path / "small-vit.json"
    torch.save(model.state_dict(), weights)
    settings.write_text(json.dumps(config))
    done = vtr_export("--open-clip", settings, "--pretrained", weights, "-o", tmp_path / "bundle")
    assert done.exit_code == 0, done.stderr
    runtime = load(tmp_path / "bundle")
    texts = ["a dog runs in the park", "two people cook"]
    with torch.inference_mode():
        want = model.encode_text(open_clip.tokenize(texts), normalize=True).numpy()
        assert np.abs(runtime.encode_texts(texts) - want).max() < 1e-5
        pixels, mask, _ = runtime.read_frames(good_clips[1])
        images = torch.from_numpy(pixels[mask]).permute(0, 3, 1, 2) / 255
        spec = runtime.manifest.frames
        mean, std = (torch.tensor(values)[:, None, None] for values in (spec.mean, spec.std))
        frames = model.encode_image((images - mean) / std, normalize=True)
        video = torch.nn.functional.normalize(frames.mean(dim=0), dim=0).numpy()
    assert np.abs(runtime.encode_videos([good_clips[1]])[0] - video).max() < 1e-5
