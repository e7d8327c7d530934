"""What the contestants run, all of it made from one set of random weights, in one folder."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from contestant import CLIPS, FRAMES, MODEL, SIZE
from video import PROJECTION, load_open_clip

from vtr_runtime.console import note
from vtr_runtime.errors import UsageError
from vtr_runtime.publish import staged_file

SEED = 0
STEPS = 10  # T' of DITS
OPSET = 18
ENVIRONMENT = (
    "python3.11 -m venv optimum && optimum/bin/pip install 'optimum[onnxruntime]' torch==2.14.1 torchvision==0.29.1"
)


@dataclass(frozen=True)
class Folder:
    """Where everything lies. Weights and peers' graphs are made once and kept; our bundle is made anew each time."""

    root: Path

    @property
    def weights(self) -> Path:
        return self.root / "open_clip.pt"

    @property
    def checkpoint(self) -> Path:
        return self.root / "model.pt"

    @property
    def plain(self) -> Path:
        return self.root / "plain.onnx"

    @property
    def optimum(self) -> Path:
        return self.root / "optimum" / "model.onnx"

    @property
    def bundle(self) -> Path:
        return self.root / "bundle"

    @property
    def int8(self) -> Path:
        return self.root / "int8" / "video.onnx"


def standard_folder(root: Path = Path("out/throughput")) -> Folder:
    """Our checkpoint and bundle, made where they are not there yet: what the other benchmarks run by default."""
    folder = Folder(root)
    if not folder.bundle.is_dir():
        note(f"making {folder.bundle}")
        folder.root.mkdir(parents=True, exist_ok=True)
        make_weights(folder)
        export_ours(folder)
    return folder


def make_weights(folder: Folder) -> None:
    """open_clip's model with random weights, and ours on the same, with mean pooling and DITS."""
    import open_clip

    from vtr_export.model.checkpoint import save_checkpoint
    from vtr_export.model.config import AlignmentConfig
    from vtr_export.model.redraw import redraw_zero_parameters
    from vtr_export.model.stock import from_open_clip

    if folder.checkpoint.is_file():
        return
    torch.manual_seed(SEED)
    stock = open_clip.create_model(MODEL, load_weights=False)
    redraw_zero_parameters(stock, SEED)  # now, so that below only what open_clip does not have is redrawn
    with staged_file(folder.weights) as staged:
        torch.save(stock.state_dict(), staged)
    alignment = AlignmentConfig(kind="dits", steps=STEPS)
    model = from_open_clip(MODEL, pretrained=folder.weights, alignment=alignment, frames=FRAMES)
    redraw_zero_parameters(model, SEED)
    save_checkpoint(folder.checkpoint, model)


def export_plain(folder: Folder) -> None:
    """PyTorch's exporter on open_clip's tower, the batch left at its 24 pictures: the least that it need compute."""
    if folder.plain.is_file():
        return
    pixels = torch.zeros(CLIPS * FRAMES, 3, SIZE, SIZE)
    program = torch.onnx.export(
        load_open_clip(folder.weights), (pixels,), dynamo=True, opset_version=OPSET, verbose=False
    )
    assert program is not None  # dynamo=True always gives a program
    with staged_file(folder.plain) as staged:
        program.save(staged, external_data=False)


def export_optimum(folder: Folder, python: Path) -> None:
    """Hugging Face's tower with the same weights, by `optimum-cli export onnx`. UsageError if that fails.

    Its task feature-extraction takes CLIPVisionModel and drops the projection; no task of it keeps it."""
    if folder.optimum.is_file():
        return
    checkpoint = folder.root / "hugging_face"
    script = Path(__file__).with_name("hugging_face.py")
    command = python.absolute().with_name("optimum-cli")  # not resolved: a venv's python is a link out of it
    if not command.is_file():
        raise UsageError(f"there is no optimum-cli beside {python}; make an environment: {ENVIRONMENT}")
    _run([str(python.absolute()), str(script), str(folder.weights), str(checkpoint)])
    arguments = ["--task", "feature-extraction", str(folder.optimum.parent)]
    _run([str(command), "export", "onnx", "-m", str(checkpoint), *arguments])
    np.save(folder.optimum.with_name(PROJECTION), torch.load(folder.weights, weights_only=True)["visual.proj"].numpy())


def export_ours(folder: Folder) -> None:
    """The fp32 bundle, as `vtr-export --ckpt model.pt` writes it."""
    from vtr_export import export
    from vtr_export.plan import ExportPlan

    export(ExportPlan(folder.bundle, checkpoint=folder.checkpoint, overwrite=True))


def quantize_ours(folder: Folder) -> None:
    """Its video graph in int8, as `--precision int8` quantises it. Noise calibrates as well as films where only time is
    asked for."""
    from vtr_export.precision.quantize import MIN_SAMPLES, quantize_graph

    generator = np.random.default_rng(SEED)
    shape = (1, FRAMES, SIZE, SIZE, 3)
    mask = np.ones((1, FRAMES), bool)
    feeds = [
        {"frames": generator.integers(0, 256, shape, dtype=np.uint8), "frame_mask": mask} for _ in range(MIN_SAMPLES)
    ]
    folder.int8.parent.mkdir(exist_ok=True)
    quantize_graph(folder.bundle / "video.onnx", folder.int8, feeds)


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise UsageError(f"{Path(command[0]).name} {Path(command[1]).name} failed: {last}")
