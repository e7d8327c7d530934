"""The buffers of one call to a graph on a GPU: pinned host memory, the GPU's memory beside it, and a stream.

They are made once for the largest shape, and every smaller one uses their beginning: addresses never change, which a
captured graph needs, and memory does not grow with the shapes that come by."""

from __future__ import annotations

import math
import weakref
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..manifest import GraphSpec, TensorSpec
from .base import Arrays
from .cuda import Cuda
from .shapes import ROW_AXES, Axes, concrete, fill


class Lane:
    """Used by one thread at a time. `address` is by tensor name; `scratch` is the address of so many bytes more, 0
    where none are asked for."""

    def __init__(self, cuda: Cuda, spec: GraphSpec, largest: Axes, *, scratch: int = 0) -> None:
        self._cuda, self._spec = cuda, spec
        self.stream = cuda.create_stream()
        self._host: dict[str, NDArray[np.uint8]] = {}
        self.address: dict[str, int] = {}
        self._scratch: list[int] = []
        self._captured: list[int] = []
        held = (self._host, self.address, self._scratch, self._captured, self.stream)
        # At the end of the process the driver takes everything back by itself.
        weakref.finalize(self, _release, cuda, *held).atexit = False
        for tensor in (*spec.inputs, *spec.outputs):
            size = tensor_bytes(tensor, largest)
            self._host[tensor.name], self.address[tensor.name] = cuda.pinned(size), cuda.allocate(size)
        if scratch:
            self._scratch.append(cuda.allocate(scratch))

    @property
    def scratch(self) -> int:
        return self._scratch[0] if self._scratch else 0

    def keep(self, graph: int) -> None:
        """A captured graph that lives as long as the buffers that it reads and writes."""
        self._captured.append(graph)

    def upload(self, feed: Arrays, filled: Axes) -> None:
        """Fill the inputs up to `filled` in pinned memory and put their copies on the stream."""
        for tensor in self._spec.inputs:
            target = self._view(tensor, filled)
            fill(target, feed[tensor.name], tensor.shape)
            self._cuda.to_device(self.address[tensor.name], target.ctypes.data, target.nbytes, self.stream)

    def download(self, axes: Axes, filled: Axes) -> Arrays:
        """Wait for the stream; the rows of the outputs that were asked for, in memory of their own. Other axes are as
        they lie there: filled up."""
        sizes = {axis: axes[axis] if axis in ROW_AXES else size for axis, size in filled.items()}
        views = {tensor.name: self._view(tensor, sizes) for tensor in self._spec.outputs}
        for name, target in views.items():
            self._cuda.to_host(target.ctypes.data, self.address[name], target.nbytes, self.stream)
        self._cuda.synchronize(self.stream)
        return {name: target.copy() for name, target in views.items()}

    def _view(self, tensor: TensorSpec, axes: Axes) -> NDArray[Any]:
        memory = self._host[tensor.name][: tensor_bytes(tensor, axes)]
        return memory.view(tensor.dtype).reshape(concrete(tensor.shape, axes))


def tensor_bytes(tensor: TensorSpec, axes: Axes) -> int:
    return math.prod(concrete(tensor.shape, axes)) * np.dtype(tensor.dtype).itemsize


def _release(
    cuda: Cuda,
    host: dict[str, NDArray[np.uint8]],
    device: dict[str, int],
    scratch: list[int],
    captured: list[int],
    stream: int,
) -> None:
    with cuda.current():
        for graph in captured:
            cuda.destroy_graph(graph)
        for memory in host.values():
            cuda.free_pinned(memory)
        for address in (*device.values(), *scratch):
            cuda.free(address)
        cuda.destroy_stream(stream)
