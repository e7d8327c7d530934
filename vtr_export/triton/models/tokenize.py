"""Triton's Python backend: sentences to token ids, by the bundle's own cleaning and tokenizer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found]  # only inside the server

from vtr_runtime.bundle import TOKENIZER, open_bundle
from vtr_runtime.errors import TextError, VtrError
from vtr_runtime.text import Tokenizer


class TritonPythonModel:
    """`text` TYPE_STRING [B, 1], UTF-8 -> `input_ids` TYPE_INT32 [B, L], zero-padded.

    L is the longest sentence of the request, rounded up to a multiple of the parameter `pad_to` and at most the context
    length: Triton joins only requests of one shape, and rounded sentences of several lengths have one."""

    def initialize(self, args: dict[str, str]) -> None:
        parameters = json.loads(args["model_config"])["parameters"]
        try:
            bundle = open_bundle(Path(args["model_repository"], parameters["bundle"]["string_value"]).resolve())
            self._tokenizer = Tokenizer.from_file(bundle.file(TOKENIZER), bundle.manifest.text)
        except VtrError as error:
            raise pb_utils.TritonModelException(str(error)) from error
        self._pad_to = int(parameters["pad_to"]["string_value"])

    def execute(self, requests: list[Any]) -> list[Any]:
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        texts = pb_utils.get_input_tensor_by_name(request, "text").as_numpy().reshape(-1)
        try:
            ids = self._tokenizer.encode([_decode(number, text) for number, text in enumerate(texts)])
        except TextError as error:
            return pb_utils.InferenceResponse(
                output_tensors=[], error=pb_utils.TritonError(str(error), pb_utils.TritonError.INVALID_ARG)
            )
        used = self._tokenizer.trim(ids).shape[1]
        padded = ids[:, : -(-used // self._pad_to) * self._pad_to]
        return pb_utils.InferenceResponse(output_tensors=[pb_utils.Tensor("input_ids", padded)])


def _decode(number: int, text: bytes) -> str:
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise TextError(f"caption {number} is not UTF-8 at byte {error.start}; send it encoded as UTF-8") from error
