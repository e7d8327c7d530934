"""Who runs: what is timed, on which engine, in which precision. Plain data that crosses to a child process."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vtr_runtime.bundle import open_bundle

Kind = Literal["product", "video", "text"]
Precision = Literal["fp32", "bf16", "int8"]

CLIPS, FRAMES, SIZE = 2, 12, 224
MODEL = "ViT-B-32-quickgelu"

# How a bundle's graphs are run, by the precision that is written in them: engine, what the row is called, OpenVINO's
# INFERENCE_PRECISION_HINT. What an int8 graph leaves unquantised is free to run in bf16. ONNX Runtime's CPU provider
# has no kernels for bf16.
OUR_RUNS: dict[str, tuple[tuple[str, Precision, str], ...]] = {
    "fp32": (("onnxruntime", "fp32", ""), ("openvino", "fp32", "f32"), ("openvino", "bf16", "bf16")),
    "int8": (("onnxruntime", "int8", ""), ("openvino", "int8", "bf16")),
}
ENGINES = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}


@dataclass(frozen=True)
class Contestant:
    """One row of a table. `missing`, where not empty, says why it cannot run and what mends that."""

    kind: Kind
    name: str
    precision: Precision
    engine: str  # of "torch": "eager", "autocast" or "compiled", for text also "trimmed"
    source: Path  # open_clip's weights, a checkpoint, a graph, or a bundle
    hint: str = ""
    ours: bool = False
    missing: str = ""


def products() -> list[Contestant]:
    """The machine itself: what its matrix product reaches."""
    return [Contestant("product", "torch.mm", "fp32", "eager", Path())]


def video_peers(weights: Path, plain: Path, optimum: Path, optimum_missing: str) -> list[Contestant]:
    """PyTorch on open_clip's module, and what the two usual exporters make of the same weights."""
    torch_rows: tuple[tuple[str, Precision, str], ...] = (
        ("PyTorch eager", "fp32", "eager"),
        ("torch.compile, frozen", "fp32", "compiled"),
        ("PyTorch eager, .bfloat16()", "bf16", "eager"),
        ("PyTorch eager, autocast", "bf16", "autocast"),
        ("torch.compile, frozen, .bfloat16()", "bf16", "compiled"),
    )
    rows = [Contestant("video", name, precision, engine, weights) for name, precision, engine in torch_rows]
    for label, graph, missing in (("dynamo export", plain, ""), ("optimum export", optimum, optimum_missing)):
        for engine, precision, hint in OUR_RUNS["fp32"]:
            name = f"{label}, {ENGINES[engine]}"
            rows.append(Contestant("video", name, precision, engine, graph, hint, missing=missing))
    return rows


def text_peers(checkpoint: Path) -> list[Contestant]:
    """PyTorch on our own module: no other library has this head."""
    rows: tuple[tuple[str, Precision, str], ...] = (
        ("PyTorch eager, padded", "fp32", "eager"),
        ("PyTorch eager, trimmed", "fp32", "trimmed"),
        ("torch.compile, frozen, padded", "fp32", "compiled"),
        ("PyTorch autocast, padded", "bf16", "autocast"),
    )
    return [Contestant("text", name, precision, engine, checkpoint) for name, precision, engine in rows]


def ours_int8(graph: Path) -> list[Contestant]:
    """Our video graph in int8: a graph alone, since no bundle of random weights passes int8's gate."""
    return [
        Contestant("video", f"int8 graph, {ENGINES[engine]}", shown, engine, graph, hint, ours=True)
        for engine, shown, hint in OUR_RUNS["int8"]
    ]


def ours(kind: Kind, name: str, bundle: Path) -> list[Contestant]:
    """The rows of one of our bundles. Raises BundleError for what is none."""
    precision = open_bundle(bundle).manifest.graph_precision
    runs = OUR_RUNS.get(precision, ())
    if not runs:
        why = f"no CPU engine has kernels for {precision} graphs"
        return [Contestant(kind, name, "fp32", "onnxruntime", bundle, ours=True, missing=why)]
    return [
        Contestant(kind, f"{name}, {ENGINES[engine]}", shown, engine, bundle, hint, ours=True)
        for engine, shown, hint in runs
    ]
