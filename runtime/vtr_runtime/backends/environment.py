"""What this machine has, as far as the choice of a backend depends on it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from ..engines.device import DeviceInfo, read_device
from ..errors import BackendError

ORT_PACKAGES = ("onnxruntime", "onnxruntime-gpu")
# The plug-in package of ONNX Runtime's provider for TensorRT for RTX, and its module.
RTX_PLUGIN, RTX_PLUGIN_MODULE = "onnxruntime-ep-nv-tensorrt-rtx", "onnxruntime_ep_nv_tensorrt_rtx"


@dataclass(frozen=True)
class Environment:
    """`libraries` are the engines' libraries at hand by name (ORT_PACKAGES, RTX_PLUGIN, and the targets trt, trt-rtx
    and openvino), with their version as engine.json has it."""

    device: DeviceInfo | None = None
    libraries: Mapping[str, str] = field(default_factory=dict)


def read_environment(device: int = 0, targets: Collection[str] = ()) -> Environment:
    """Of this machine. A library is loaded for its version only where an engine of `targets` might run on it."""
    gpu = read_device(device)
    libraries = {name: found for name in ORT_PACKAGES if (found := package_version(name))}
    if find_spec(RTX_PLUGIN_MODULE) is not None:
        libraries[RTX_PLUGIN] = ""
    for target in targets:
        if (target == "openvino" or gpu is not None) and (found := _library_version(target)):
            libraries[target] = found
    if "openvino" not in libraries and find_spec("openvino") is not None:
        libraries["openvino"] = package_version("openvino") or ""
    return Environment(gpu, libraries)


def package_version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _library_version(target: str) -> str | None:
    from ..engines.tensorrt_library import load_tensorrt
    from ..openvino import import_openvino

    try:
        if target == "openvino":
            return str(import_openvino().__version__)
        return load_tensorrt("trt" if target == "trt" else "trt-rtx").version
    except BackendError:  # absent: who asks for it by name is told how to install it
        return None
