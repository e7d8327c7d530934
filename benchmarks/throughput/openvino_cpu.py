"""OpenVINO on the CPU, compiled as the runtime compiles, in a precision that is asked for and read back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vtr_runtime.backends.openvino import OpenVinoBackend
from vtr_runtime.openvino import HINTS, compile_graph


def compile_openvino(path: Path, *, hint: str, threads: int) -> Any:
    """An infer request of a graph. BackendError if the processor lacks the precision, or OpenVINO took another."""
    precision = next(precision for precision, its_hint in HINTS.items() if its_hint == hint)
    return compile_graph(path, precision, threads=threads).create_infer_request()


class OpenVinoText:
    """The text half of a vtr_runtime Backend, so that `Model.encode_texts` runs as it does on any engine."""

    name = "openvino"
    text_rows = OpenVinoBackend.text_rows

    def __init__(self, path: Path, *, hint: str, threads: int) -> None:
        self._request = compile_openvino(path, hint=hint, threads=threads)

    def text(self, ids: NDArray[np.int32]) -> dict[str, NDArray[np.float32]]:
        return {"embedding": self._request.infer({"input_ids": ids})["embedding"].copy()}
