"""Tensors that stay on the GPU: looked at as inputs, made as outputs, fetched."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BackendError
from ..manifest import GraphSpec
from .base import DeviceTensor
from .cuda import Cuda
from .dlpack import Result, View, view
from .lane import tensor_bytes
from .shapes import Axes, check_feed, concrete


def check_views(name: str, spec: GraphSpec, views: Mapping[str, View]) -> Axes:
    """The sizes of the dynamic axes; BackendError as `check_feed`."""
    # An array of zeros is broadcast from one element: it stands for shape and type, and takes no memory.
    stand_ins = {key: np.broadcast_to(np.zeros((), found.dtype), found.shape) for key, found in views.items()}
    return check_feed(name, spec, stand_ins)


def make_results(
    cuda: Cuda, spec: GraphSpec, axes: Axes, device: tuple[int, int]
) -> tuple[dict[str, DeviceTensor], dict[str, int]]:
    """Memory for the outputs, which is freed when nobody holds them; and their addresses."""
    results: dict[str, DeviceTensor] = {}
    addresses: dict[str, int] = {}
    for tensor in spec.outputs:
        address = addresses[tensor.name] = cuda.allocate(tensor_bytes(tensor, axes))
        shape = concrete(tensor.shape, axes)
        results[tensor.name] = Result(address, shape, tensor.dtype, device, partial(_free, cuda, address))
    return results, addresses


def _free(cuda: Cuda, address: int) -> None:
    with suppress(BackendError), cuda.current():  # the driver may be gone already when the process ends
        cuda.free(address)


def fetch(cuda: Cuda, tensor: DeviceTensor, device: tuple[int, int]) -> NDArray[Any]:
    """A copy on the host."""
    stream = cuda.create_stream()
    try:
        found = view("the tensor", tensor, device, stream)
        out = np.empty(found.shape, found.dtype)
        cuda.to_host(out.ctypes.data, found.address, out.nbytes, stream)
        cuda.synchronize(stream)
        return out
    finally:
        cuda.destroy_stream(stream)
