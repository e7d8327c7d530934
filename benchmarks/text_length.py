"""How much does a short sentence save? The text tower at 16 and at 77 tokens, PyTorch and ONNX Runtime in one run.

    python benchmarks/text_length.py [--model ViT-B-32-quickgelu] [--batch 16] [--repeats 10]

Random weights: time does not depend on them. Prints the median of the repeats and the largest difference of the
embeddings between both lengths."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import click
import numpy as np
import onnxruntime
import torch

from vtr_export.graph.check import random_ids
from vtr_export.graph.fold import fold_text_tower
from vtr_export.graph.trace import trace_text
from vtr_export.model.stock import from_open_clip
from vtr_runtime.console import table

SHORT, FULL = 16, 77


@click.command()
@click.option("--model", "name", default="ViT-B-32-quickgelu", show_default=True)
@click.option("--batch", default=16, show_default=True)
@click.option("--repeats", default=10, show_default=True)
def main(name: str, batch: int, repeats: int) -> None:
    """Time the text tower at 16 and at 77 tokens."""
    model = from_open_clip(name, pretrained=None)
    short = random_ids(np.random.default_rng(0), batch, SHORT, model.config.text)
    full = np.pad(short, ((0, 0), (0, FULL - SHORT)))
    with TemporaryDirectory() as folder:
        path = Path(folder) / "text.onnx"
        trace_text(fold_text_tower(model.text), model.config, path, opset=18, debug_outputs=False)
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def eager(ids: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return model.text(torch.from_numpy(ids)).numpy()

    def ort(ids: np.ndarray) -> np.ndarray:
        return session.run(["embedding"], {"input_ids": ids})[0]

    rows = []
    for label, run in (("PyTorch eager", eager), ("ONNX Runtime", ort)):
        times = [measure(run, ids, repeats) * 1000 for ids in (full, short)]
        difference = np.abs(run(full) - run(short)).max()
        rows.append((label, *(f"{ms:.1f}" for ms in times), f"{times[1] / times[0]:.2f}", f"{difference:.1e}"))
    columns = ("engine", f"{FULL} tokens, ms", f"{SHORT} tokens, ms", "share", "max difference")
    table(f"{name}, batch {batch}, fp32, {torch.get_num_threads()} threads", columns, rows)


def measure(run: Callable[[np.ndarray], np.ndarray], ids: np.ndarray, repeats: int) -> float:
    """Median seconds of a pass, after one that is not counted."""
    run(ids)
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        run(ids)
        seconds.append(time.perf_counter() - start)
    return median(seconds)


if __name__ == "__main__":
    main()
