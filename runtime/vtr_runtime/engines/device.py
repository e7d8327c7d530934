"""The NVIDIA GPU of this machine, read from the driver's own library: no further package is needed."""

from __future__ import annotations

import ctypes
import platform
import sys
from dataclasses import dataclass
from typing import Any

DRIVER_LIBRARIES = ("nvcuda.dll",) if sys.platform == "win32" else ("libcuda.so.1", "libcuda.so")
# CUdevice_attribute of cuda.h
INTEGRATED, CAPABILITY_MAJOR, CAPABILITY_MINOR = 18, 75, 76


@dataclass(frozen=True)
class DeviceInfo:
    """One GPU. Sizes are in bytes; `integrated` says that host and GPU share one memory, as on Jetson."""

    name: str
    sm: str
    driver: str
    memory_total: int
    memory_free: int | None
    integrated: bool

    @property
    def summary(self) -> str:
        return f"{self.name} (SM{self.sm}, {self.memory_total / 2**30:.1f} GiB, driver for CUDA {self.driver})"


def host_platform() -> str:
    """Operating system and architecture, such as linux-x86_64 or linux-aarch64."""
    machine = platform.machine().lower()
    return f"{platform.system().lower()}-{'x86_64' if machine == 'amd64' else machine}"


def read_device(index: int = 0) -> DeviceInfo | None:
    """The GPU `index` as the driver numbers them, or None where there is no driver or no such GPU."""
    driver = open_driver()
    if driver is None or driver.cuInit(0) != 0:
        return None
    handle = ctypes.c_int()
    if driver.cuDeviceGet(ctypes.byref(handle), index) != 0:
        return None
    name = ctypes.create_string_buffer(256)
    total, version = ctypes.c_size_t(), ctypes.c_int()
    driver.cuDeviceGetName(name, len(name), handle)
    driver.cuDeviceTotalMem_v2(ctypes.byref(total), handle)
    driver.cuDriverGetVersion(ctypes.byref(version))
    major, minor = _attribute(driver, handle, CAPABILITY_MAJOR), _attribute(driver, handle, CAPABILITY_MINOR)
    return DeviceInfo(
        name=name.value.decode(errors="replace"),
        sm=f"{major}{minor}",
        driver=f"{version.value // 1000}.{version.value % 1000 // 10}",
        memory_total=total.value,
        memory_free=_free_memory(driver, handle),
        integrated=bool(_attribute(driver, handle, INTEGRATED)),
    )


def open_driver() -> Any:
    for name in DRIVER_LIBRARIES:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None


def _attribute(driver: Any, handle: ctypes.c_int, attribute: int) -> int:
    value = ctypes.c_int()
    driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, handle)
    return value.value


def _free_memory(driver: Any, handle: ctypes.c_int) -> int | None:
    """Free bytes on the GPU; the driver tells them only inside a context."""
    context = ctypes.c_void_p()
    if driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), handle) != 0:
        return None
    try:
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        if driver.cuCtxPushCurrent_v2(context) != 0:
            return None
        failed = driver.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total))
        driver.cuCtxPopCurrent_v2(ctypes.byref(ctypes.c_void_p()))
        return None if failed else free.value
    finally:
        driver.cuDevicePrimaryCtxRelease_v2(handle)
