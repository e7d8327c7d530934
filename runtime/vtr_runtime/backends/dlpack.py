"""Tensors of other libraries, and ours for them, without a copy: DLPack's structures by ctypes.

Numpy speaks DLPack for the CPU alone, and the runtime must not import torch; the structures are five fields and a
promise of who frees what (https://dmlc.github.io/dlpack/latest)."""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError
from .base import DeviceTensor

CPU, CUDA = 1, 2  # DLDeviceType
_TYPES = {"int32": (0, 32), "uint8": (1, 8), "float32": (2, 32), "bool": (6, 8)}  # DLDataTypeCode and bits
_NAMES = {code: name for name, code in _TYPES.items()}


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class _Managed(ctypes.Structure):
    pass


_DELETER = ctypes.CFUNCTYPE(None, ctypes.POINTER(_Managed))
_Managed._fields_ = (("tensor", _Tensor), ("context", ctypes.c_void_p), ("deleter", _DELETER))

_DESTRUCTOR = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_NAME = b"dltensor"  # a capsule that was taken is called used_dltensor by who took it


def _python_api(name: str, result: Any, *arguments: Any) -> Any:
    return ctypes.PYFUNCTYPE(result, *arguments)((name, ctypes.pythonapi))


_new_capsule = _python_api("PyCapsule_New", ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, _DESTRUCTOR)
_inside = _python_api("PyCapsule_GetPointer", ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)
# Of a capsule that is being destroyed: by its address, because a reference to it would bring it back to life.
_is_untaken = _python_api("PyCapsule_IsValid", ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)
_inside_dying = _python_api("PyCapsule_GetPointer", ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)


@dataclass(frozen=True)
class View:
    """Where a foreign tensor lies; it lives as long as this does."""

    address: int
    shape: tuple[int, ...]
    dtype: str
    capsule: object


def view(name: str, tensor: DeviceTensor, device: tuple[int, int], stream: int | None) -> View:
    """Look at a tensor on `device`, whose owner makes `stream` wait for what it still writes.

    UsageError for what lies elsewhere, has gaps or a type that no graph takes."""
    if not isinstance(tensor, DeviceTensor):
        raise UsageError(f"{name} must be a tensor with __dlpack__ (torch, CuPy, numpy), not {type(tensor).__name__}")
    kind, index = tensor.__dlpack_device__()
    if (int(kind), index) != device:
        raise UsageError(
            f"{name} lies on DLPack device {(int(kind), index)}, and this backend runs on {device}; move it"
        )
    try:  # a stream is of no use to who owns memory of the CPU, and numpy refuses one
        capsule = tensor.__dlpack__() if stream is None else tensor.__dlpack__(stream=stream)
    except (BufferError, RuntimeError) as error:  # torch: a tensor that requires its gradient
        raise UsageError(f"{name} is not lent by its owner: {error}") from error
    found = ctypes.cast(_inside(capsule, _NAME), ctypes.POINTER(_Managed)).contents.tensor
    shape = tuple(found.shape[: found.ndim])
    dtype = _NAMES.get((found.code, found.bits)) if found.lanes == 1 else None
    if dtype is None:
        raise UsageError(f"{name} has a type that no graph takes; convert it to one of {', '.join(_TYPES)}")
    if found.strides and not _contiguous(shape, tuple(found.strides[: found.ndim])):
        raise UsageError(f"{name} has gaps in memory; make it contiguous first")
    return View((found.data or 0) + found.byte_offset, shape, dtype, capsule)


def _contiguous(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    expected = 1
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size != 1 and stride != expected:
            return False
        expected *= size
    return True


class Result:
    """An output in memory of ours, for `torch.from_dlpack` and its like; `free` is called when nobody holds it."""

    def __init__(
        self, address: int, shape: tuple[int, ...], dtype: str, device: tuple[int, int], free: Callable[[], None]
    ) -> None:
        self.shape, self.dtype, self._address, self._device = shape, dtype, address, device
        self._memory = _Memory(free)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._device

    def __dlpack__(self, *, stream: int | None = None, **_: Any) -> Any:
        """A capsule. What is in it is complete, so no stream has to wait."""
        return _capsule(self)

    def numpy(self) -> NDArray[Any]:
        """Of memory of the CPU."""
        return np.from_dlpack(self)


class _Memory:
    def __init__(self, free: Callable[[], None]) -> None:
        self._free = free

    def __del__(self) -> None:
        self._free()


# What a capsule points to must stay where it is until its taker is done with it. By its key: everything that it needs.
_lent: dict[int, tuple[Any, ...]] = {}
_keys = itertools.count(1)


def _capsule(result: Result) -> Any:
    shape = (ctypes.c_int64 * max(1, len(result.shape)))(*result.shape)
    code, bits = _TYPES[result.dtype]
    key = next(_keys)
    tensor = _Tensor(result._address, *result._device, len(result.shape), code, bits, 1, shape, None, 0)
    managed = _Managed(tensor, key, _release_callback)
    _lent[key] = (managed, shape, result._memory)
    return _new_capsule(ctypes.addressof(managed), _NAME, _destroy_callback)


def _release(managed: Any) -> None:
    _lent.pop(managed.contents.context, None)


def _destroy(capsule: int) -> None:
    """Free what is in a capsule that nobody took."""
    if _is_untaken(capsule, _NAME):
        _release(ctypes.cast(_inside_dying(capsule, _NAME), ctypes.POINTER(_Managed)))


# Kept for good: foreign code calls them.
_release_callback, _destroy_callback = _DELETER(_release), _DESTRUCTOR(_destroy)
