"""Bundle -> Triton model repository: the graphs, the steps before them in Python, and ensembles that join the two."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

import numpy as np

from vtr_runtime.bundle import Bundle, open_bundle
from vtr_runtime.manifest import FrameSpec, GraphSpec, TextSpec
from vtr_runtime.publish import staged_folder

from . import models
from .model_config import Batching, Warmup, ensemble, graph_model, python_model, tensor
from .pbtxt import Message, to_pbtxt

TEXT_DELAY_US = 500
"""The longest that a query, for which somebody waits, is held back for others to join it."""
VIDEO_DELAY_US = 5_000
PAD_TO = 16
"""Sentences are padded to a multiple of this many ids. Triton joins requests of one shape only."""
GPU_ONLY = frozenset({"fp16", "bf16"})
"""ONNX Runtime's CPU provider emulates fp16 and has no bf16 kernels: such a graph is not to fall back to it unseen."""


@dataclass(frozen=True)
class _Model:
    """One folder of the repository. `version` maps names in the folder `1` to what is linked or copied there."""

    config: Message
    version: dict[str, Path] = field(default_factory=dict)
    warmup: Sequence[Warmup] = ()

    @property
    def name(self) -> str:
        return str(self.config["name"])


def write_repository(
    bundle_folder: Path, output: Path, *, video_batch: tuple[int, int, int], text_batch: tuple[int, int, int]
) -> list[Path]:
    """Write the model repository of a bundle and return its files.

    `video_batch` and `text_batch` are min, opt and max: Triton joins requests up to max rows and favours opt. The
    Python models find the bundle by its path relative to them, so that the two are moved together. A graph is a hard
    link to the bundle's where the file system allows it, else a copy.

    Raises:
        ConfigError: a batch range that Triton cannot keep.
        OutputExistsError: `output` is there already.
        BundleError: not a bundle, or a damaged one."""
    text = Batching.from_range("text", text_batch, delay=TEXT_DELAY_US)
    video = Batching.from_range("video", video_batch, delay=VIDEO_DELAY_US)
    bundle = open_bundle(bundle_folder)
    output.parent.mkdir(parents=True, exist_ok=True)
    # Every model folder lies at the same depth.
    to_bundle = os.path.relpath(bundle_folder.resolve(), output.resolve() / "model")
    with staged_folder(output) as folder:
        for model in _models(bundle, Path(to_bundle).as_posix(), video, text):
            _write_model(folder / model.name, model)
    return sorted(path for path in output.rglob("*") if path.is_file())


def _models(bundle: Bundle, to_bundle: str, video: Batching, text: Batching) -> list[_Model]:
    manifest = bundle.manifest
    graphs = manifest.graphs
    kind = "KIND_GPU" if manifest.graph_precision in GPU_ONLY else "KIND_AUTO"

    def served(name: str, graph: GraphSpec, batching: Batching | None, warmup: Sequence[Warmup] = ()) -> _Model:
        config = graph_model(name, graph, batching, kind=kind, warmup=warmup)
        return _Model(config, _graph_files(bundle, graph), warmup)

    tokenize = python_model(
        "vtr_tokenize",
        most=text.most,
        inputs=[tensor("text", "TYPE_STRING", [1])],
        outputs=[tensor("input_ids", "TYPE_INT32", [-1])],
        parameters={"bundle": to_bundle, "pad_to": str(PAD_TO)},
    )
    spec = manifest.frames
    frames = python_model(
        "vtr_frames",
        most=video.most,
        inputs=[tensor("video", "TYPE_STRING", [1])],
        outputs=[
            tensor("frames", "TYPE_UINT8", [spec.count, spec.size, spec.size, 3]),
            tensor("frame_mask", "TYPE_BOOL", [spec.count]),
            tensor("warnings", "TYPE_STRING", [1]),
        ],
        parameters={"bundle": to_bundle, "media_root": ""},
    )
    text_tower = served("vtr_text", graphs.text, text, _text_warmup(manifest.text, text))
    video_tower = served("vtr_video", graphs.video, video, _video_warmup(spec, video))
    rerank = [served("vtr_rerank", graphs.rerank, None)] if graphs.rerank else []
    return [
        _Model(tokenize, {"model.py": _source("tokenize.py")}),
        _Model(frames, {"model.py": _source("frames.py")}),
        text_tower,
        video_tower,
        *rerank,
        _Model(ensemble("vtr_embed_text", tokenize, text_tower.config)),
        _Model(ensemble("vtr_embed_video", frames, video_tower.config, also=("frame_mask", "warnings"))),
    ]


def _text_warmup(spec: TextSpec, batching: Batching) -> list[Warmup]:
    """The shortest and the longest sentence that the tokenizer model sends, alone and in the preferred batch."""
    requests = []
    for length in sorted({min(PAD_TO, spec.context_length), spec.context_length}):
        ids = np.zeros(length, np.int32)
        ids[0], ids[-1] = spec.start_id, spec.end_id
        for rows in sorted({1, batching.preferred}):
            requests.append(Warmup(f"{length}_tokens_{rows}_rows", rows, {"input_ids": ids}))
    return requests


def _video_warmup(spec: FrameSpec, batching: Batching) -> list[Warmup]:
    """Black frames, all of them valid, alone and in the preferred batch."""
    inputs = {
        "frames": np.zeros((spec.count, spec.size, spec.size, 3), np.uint8),
        "frame_mask": np.ones(spec.count, np.bool_),
    }
    return [Warmup(f"{rows}_rows", rows, inputs) for rows in sorted({1, batching.preferred})]


def _graph_files(bundle: Bundle, graph: GraphSpec) -> dict[str, Path]:
    """The graph becomes model.onnx; its weights keep their name, by which the graph knows them."""
    named = {"model.onnx": bundle.file(graph.file)}
    if graph.external_data:
        named[Path(graph.external_data).name] = bundle.file(graph.external_data)
    return named


def _source(name: str) -> Path:
    return Path(str(files(models) / name))


def _write_model(folder: Path, model: _Model) -> None:
    (folder / "1").mkdir(parents=True)
    (folder / "config.pbtxt").write_text(to_pbtxt(model.config), encoding="utf-8")
    for name, source in model.version.items():
        _place(source, folder / "1" / name)
    if not model.version:
        # Triton wants the folder of the version, and archives and object stores lose empty ones.
        (folder / "1" / ".keep").touch()
    for request in model.warmup:
        for name, content in request.files().items():
            (folder / "warmup").mkdir(exist_ok=True)
            (folder / "warmup" / name).write_bytes(content)


def _place(source: Path, target: Path) -> None:
    # onnx refuses to load weights beside a graph that have a second hard link, and sources are not to be linked at all.
    if source.suffix == ".onnx":
        with contextlib.suppress(OSError):
            os.link(source, target)
            return
    shutil.copyfile(source, target)
