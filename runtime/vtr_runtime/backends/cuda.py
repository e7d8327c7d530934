"""Memory, streams and captured graphs of one NVIDIA GPU, by the driver's own library.

The driver is there wherever a GPU works, so no binding of a certain CUDA release has to be installed and fit. TensorRT
and ONNX Runtime use the same primary context, and a CUstream is their cudaStream_t."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..engines.device import open_driver
from ..errors import BackendError, UnavailableError

_HANDLE, _SIZE, _POINTER = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint64
_OUT_HANDLE, _OUT_POINTER = ctypes.POINTER(ctypes.c_void_p), ctypes.POINTER(ctypes.c_uint64)
# Argument types as in cuda.h; a call without them would cut addresses to 32 bits.
SIGNATURES: dict[str, tuple[Any, ...]] = {
    "cuInit": (ctypes.c_uint,),
    "cuDeviceGet": (ctypes.POINTER(ctypes.c_int), ctypes.c_int),
    "cuDevicePrimaryCtxRetain": (_OUT_HANDLE, ctypes.c_int),
    "cuCtxPushCurrent_v2": (_HANDLE,),
    "cuCtxPopCurrent_v2": (_OUT_HANDLE,),
    "cuMemAlloc_v2": (_OUT_POINTER, _SIZE),
    "cuMemFree_v2": (_POINTER,),
    "cuMemHostAlloc": (_OUT_HANDLE, _SIZE, ctypes.c_uint),
    "cuMemFreeHost": (_HANDLE,),
    "cuMemcpyHtoDAsync_v2": (_POINTER, _HANDLE, _SIZE, _HANDLE),
    "cuMemcpyDtoHAsync_v2": (_HANDLE, _POINTER, _SIZE, _HANDLE),
    "cuStreamCreate": (_OUT_HANDLE, ctypes.c_uint),
    "cuStreamDestroy_v2": (_HANDLE,),
    "cuStreamSynchronize": (_HANDLE,),
    "cuStreamBeginCapture_v2": (_HANDLE, ctypes.c_int),
    "cuStreamEndCapture": (_HANDLE, _OUT_HANDLE),
    "cuGraphInstantiateWithFlags": (_OUT_HANDLE, _HANDLE, ctypes.c_ulonglong),
    "cuGraphLaunch": (_HANDLE, _HANDLE),
    "cuGraphDestroy": (_HANDLE,),
    "cuGraphExecDestroy": (_HANDLE,),
    "cuGetErrorName": (ctypes.c_int, ctypes.POINTER(ctypes.c_char_p)),
}
NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING: no waiting for the legacy default stream
THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: other threads may allocate while this one captures


class Cuda:
    """The primary context of a GPU. Everything but `current` is called within it."""

    def __init__(self, index: int = 0, library: Any = None) -> None:
        """UnavailableError where there is no driver or no such GPU."""
        self._library = library or open_driver()
        if self._library is None:
            raise UnavailableError("no NVIDIA driver was found (libcuda); this backend needs an NVIDIA GPU")
        self._functions = {name: self._function(name, types) for name, types in SIGNATURES.items()}
        self.index = index
        device, context = ctypes.c_int(), ctypes.c_void_p()
        try:
            self._call("cuInit", 0)
            self._call("cuDeviceGet", ctypes.byref(device), index)
        except BackendError as error:
            raise UnavailableError(f"there is no NVIDIA GPU {index}: {error}") from error
        # Kept until the process ends: torch, ONNX Runtime and TensorRT share it.
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self._context = context

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make the GPU this thread's, and give the thread back the one that it had: it may be a caller's."""
        self._call("cuCtxPushCurrent_v2", self._context)
        try:
            yield
        finally:
            self._call("cuCtxPopCurrent_v2", ctypes.byref(ctypes.c_void_p()))

    def allocate(self, size: int) -> int:
        """Bytes of the GPU's memory: their address. BackendError where there is no room."""
        address = ctypes.c_uint64()
        self._call("cuMemAlloc_v2", ctypes.byref(address), max(size, 1))
        return address.value

    def free(self, address: int) -> None:
        self._call("cuMemFree_v2", address)

    def pinned(self, size: int) -> NDArray[np.uint8]:
        """Bytes of host memory that the GPU reads and writes by itself; given back by `free_pinned`."""
        address = ctypes.c_void_p()
        self._call("cuMemHostAlloc", ctypes.byref(address), max(size, 1), 0)
        memory = (ctypes.c_uint8 * max(size, 1)).from_address(address.value or 0)
        return np.ctypeslib.as_array(memory)

    def free_pinned(self, memory: NDArray[np.uint8]) -> None:
        self._call("cuMemFreeHost", memory.ctypes.data)

    def to_device(self, address: int, source: int, size: int, stream: int) -> None:
        self._call("cuMemcpyHtoDAsync_v2", address, source, size, stream)

    def to_host(self, target: int, address: int, size: int, stream: int) -> None:
        self._call("cuMemcpyDtoHAsync_v2", target, address, size, stream)

    def create_stream(self) -> int:
        stream = ctypes.c_void_p()
        self._call("cuStreamCreate", ctypes.byref(stream), NON_BLOCKING)
        return stream.value or 0

    def destroy_stream(self, stream: int) -> None:
        self._call("cuStreamDestroy_v2", stream)

    def synchronize(self, stream: int) -> None:
        self._call("cuStreamSynchronize", stream)

    def capture(self, stream: int, work: Callable[[], None]) -> int:
        """What `work` puts on the stream, as a graph that can be launched again; nothing of it is run now."""
        self._call("cuStreamBeginCapture_v2", stream, THREAD_LOCAL)
        graph, executable = ctypes.c_void_p(), ctypes.c_void_p()
        try:
            try:
                work()
            finally:  # a capture that is left open would spoil the stream
                ended = self._functions["cuStreamEndCapture"](stream, ctypes.byref(graph))
            self._check("cuStreamEndCapture", ended)
            self._call("cuGraphInstantiateWithFlags", ctypes.byref(executable), graph, 0)
        finally:
            if graph:
                self._call("cuGraphDestroy", graph)
        return executable.value or 0

    def launch(self, graph: int, stream: int) -> None:
        self._call("cuGraphLaunch", graph, stream)

    def destroy_graph(self, graph: int) -> None:
        self._call("cuGraphExecDestroy", graph)

    def _function(self, name: str, types: tuple[Any, ...]) -> Any:
        try:
            function = getattr(self._library, name)
        except AttributeError as error:
            raise UnavailableError(f"the NVIDIA driver is too old: it has no {name}; CUDA 11.4 is needed") from error
        function.argtypes, function.restype = types, ctypes.c_int
        return function

    def _call(self, name: str, *arguments: Any) -> None:
        self._check(name, self._functions[name](*arguments))

    def _check(self, name: str, status: int) -> None:
        if status == 0:
            return
        text = ctypes.c_char_p()
        self._functions["cuGetErrorName"](status, ctypes.byref(text))
        found = text.value.decode() if text.value else f"error {status}"
        hint = "; the GPU's memory is full, free some or use smaller batches" if "OUT_OF_MEMORY" in found else ""
        raise BackendError(f"the NVIDIA driver answered {found} to {name}{hint}")
