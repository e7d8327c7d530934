"""OpenVINO on the CPU in a precision that was asked for and read back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vtr_runtime.backends.openvino import OpenVinoBackend


def compile_openvino(path: Path, *, hint: str, threads: int) -> Any:
    """An infer request of a graph. Without a hint OpenVINO runs fp32 models in bf16 on processors that can.

    RuntimeError if the processor lacks the precision, or OpenVINO took another."""
    import openvino

    core = openvino.Core()
    if hint == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise RuntimeError("this processor has no bf16 in OpenVINO")
    settings = {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    compiled = core.compile_model(str(path), "CPU", settings)
    taken = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    if taken != hint:
        raise RuntimeError(f"OpenVINO runs in {taken} where {hint} was asked for")
    return compiled.create_infer_request()


class OpenVinoText:
    """The text half of a vtr_runtime Backend, so that `Model.encode_texts` runs as it does on any engine."""

    name = "openvino"
    text_rows = OpenVinoBackend.text_rows

    def __init__(self, path: Path, *, hint: str, threads: int) -> None:
        self._request = compile_openvino(path, hint=hint, threads=threads)

    def text(self, ids: NDArray[np.int32]) -> dict[str, NDArray[np.float32]]:
        return {"embedding": self._request.infer({"input_ids": ids})["embedding"].copy()}
