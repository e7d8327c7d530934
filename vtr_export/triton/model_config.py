"""The configuration of each model of the repository, as Triton's `ModelConfig` message.

Field names and meaning: https://github.com/triton-inference-server/common/blob/main/protobuf/model_config.proto"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vtr_runtime.errors import ConfigError
from vtr_runtime.manifest import GraphSpec, TensorSpec

from .pbtxt import Message, Name, Value, entries

TYPES = {"uint8": "TYPE_UINT8", "bool": "TYPE_BOOL", "int32": "TYPE_INT32", "float32": "TYPE_FP32"}


@dataclass(frozen=True)
class Batching:
    """How requests are joined: up to `most` rows, at best `preferred`, after at most `delay` microseconds."""

    preferred: int
    most: int
    delay: int

    @classmethod
    def from_range(cls, what: str, sizes: tuple[int, int, int], *, delay: int) -> Batching:
        """From min, opt and max. ConfigError for what Triton cannot keep."""
        least, preferred, most = sizes
        if least != 1:
            raise ConfigError(
                f"{what}: Triton sends what has come when the delay is over, a single row too; "
                f"give --batch 1:{preferred}:{most}, not {least}:{preferred}:{most}"
            )
        if not least <= preferred <= most:
            raise ConfigError(f"{what}: batch {least}:{preferred}:{most} is not MIN:OPT:MAX in rising order")
        return cls(preferred, most, delay)

    @property
    def message(self) -> Message:
        sizes = sorted({self.preferred, self.most} - {1})
        return {"preferred_batch_size": sizes, "max_queue_delay_microseconds": self.delay}


@dataclass(frozen=True)
class Warmup:
    """One request that an instance answers before it is ready: `rows` equal rows, `inputs` without the batch axis."""

    name: str
    rows: int
    inputs: Mapping[str, NDArray[np.generic]]

    def files(self) -> dict[str, bytes]:
        """What goes into the model's `warmup` folder."""
        return {self._file(name): array.tobytes() for name, array in self.inputs.items() if array.any()}

    def _file(self, tensor: str) -> str:
        return f"{self.name}.{tensor}"

    @property
    def message(self) -> Message:
        return {
            "name": self.name,
            "batch_size": self.rows,
            "inputs": entries({name: self._input(name, array) for name, array in self.inputs.items()}),
        }

    def _input(self, name: str, array: NDArray[np.generic]) -> Message:
        content: Message = {"input_data_file": self._file(name)} if array.any() else {"zero_data": True}
        return {"data_type": Name(TYPES[array.dtype.name]), "dims": list(array.shape), **content}


def tensor(name: str, kind: str, dims: Sequence[int]) -> Message:
    return {"name": name, "data_type": Name(kind), "dims": list(dims)}


def graph_tensor(spec: TensorSpec, *, batched: bool) -> Message:
    """A graph's tensor; where Triton batches, `dims` leaves the batch axis out."""
    shape = spec.shape[1:] if batched else spec.shape
    return tensor(spec.name, TYPES[spec.dtype], [size if isinstance(size, int) else -1 for size in shape])


def graph_model(
    name: str, graph: GraphSpec, batching: Batching | None, *, kind: str, warmup: Sequence[Warmup] = ()
) -> Message:
    """An ONNX graph on Triton's ONNX Runtime backend. Without `batching` a request is run as it comes."""
    batched = batching is not None
    return {
        "name": name,
        "backend": "onnxruntime",
        "platform": "onnxruntime_onnx",
        "max_batch_size": batching.most if batching else 0,
        "input": [graph_tensor(spec, batched=batched) for spec in graph.inputs],
        "output": [graph_tensor(spec, batched=batched) for spec in graph.outputs],
        "instance_group": [{"count": 1, "kind": Name(kind)}],
        **({"dynamic_batching": batching.message} if batching else {}),
        "model_warmup": [request.message for request in warmup],
    }


def python_model(
    name: str, *, most: int, inputs: Sequence[Message], outputs: Sequence[Message], parameters: Mapping[str, str]
) -> Message:
    """A model of the Python backend. It takes what is there and waits for nothing: the graph behind it does."""
    return {
        "name": name,
        "backend": "python",
        "max_batch_size": most,
        "input": list(inputs),
        "output": list(outputs),
        "instance_group": [{"count": 1, "kind": Name("KIND_CPU")}],
        "dynamic_batching": {},
        "parameters": entries({key: {"string_value": value} for key, value in parameters.items()}),
    }


def ensemble(name: str, first: Message, second: Message, *, also: Sequence[str] = ()) -> Message:
    """`first` feeds `second`, each tensor under its own name. Gives the second's outputs and `also` of the first's."""
    passed = [output for output in _messages(first, "output") if output["name"] in also]
    return {
        "name": name,
        "platform": "ensemble",
        "max_batch_size": second["max_batch_size"],
        "input": _messages(first, "input"),
        "output": [*_messages(second, "output"), *passed],
        "ensemble_scheduling": {"step": [_step(first), _step(second)]},
    }


def _step(model: Message) -> Message:
    return {
        "model_name": model["name"],
        "model_version": -1,
        "input_map": entries({str(each["name"]): each["name"] for each in _messages(model, "input")}),
        "output_map": entries({str(each["name"]): each["name"] for each in _messages(model, "output")}),
    }


def _messages(model: Message, field: str) -> list[dict[str, Value]]:
    value = model[field]
    assert isinstance(value, list)
    return value
