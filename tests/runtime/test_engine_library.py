"""The TensorRT libraries: absent, foreign and broken ones are one sentence each, and every name that is used exists."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import tensorrt_lean

import vtr_runtime.engines
from vtr_runtime.engines import device as device_module
from vtr_runtime.engines.device import DeviceInfo, host_platform, read_device
from vtr_runtime.engines.tensorrt_library import BuilderLog, TensorRT, load_tensorrt
from vtr_runtime.errors import BackendError

SOURCES = sorted(Path(inspect.getfile(vtr_runtime.engines)).parent.glob("tensorrt_*.py"))
# What the runtime alone, without a builder, must offer to check, load, inspect and refit an engine.
RUNTIME = {
    "Runtime": ("deserialize_cuda_engine",),
    "ICudaEngine": ("create_engine_inspector", "create_serialization_config", "serialize_with_config"),
    "Refitter": ("get_missing_weights", "refit_cuda_engine"),
    "ISerializationConfig": ("clear_flag", "set_flag"),
    "SerializationFlag": ("EXCLUDE_WEIGHTS", "INCLUDE_REFIT"),
    "LayerInformationFormat": ("JSON",),
    "BuilderFlag": ("TF32", "VERSION_COMPATIBLE", "REFIT", "STRIP_PLAN"),
    "HardwareCompatibilityLevel": ("AMPERE_PLUS", "SAME_COMPUTE_CAPABILITY"),
    "MemoryPoolType": ("WORKSPACE",),
    "ProfilingVerbosity": ("DETAILED",),
    "ILogger": ("ERROR", "INFO"),
}


@pytest.fixture(scope="module")
def rtx() -> TensorRT:
    return load_tensorrt("trt-rtx")


def names_on(variables: set[str]) -> set[str]:
    """Attribute names that the sources take of these variables, whatever stands before them."""
    found = set()
    for source in SOURCES:
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute):
                base = node.value
                last = base.id if isinstance(base, ast.Name) else base.attr if isinstance(base, ast.Attribute) else ""
                if last in variables:
                    found.add(node.attr)
    return found


@pytest.mark.parametrize(
    ("variables", "owner"),
    [
        ({"module"}, None),
        ({"builder"}, "Builder"),
        ({"config"}, "IBuilderConfig"),
        ({"network"}, "INetworkDefinition"),
        ({"profile"}, "IOptimizationProfile"),
        ({"refitter"}, "Refitter"),
        ({"engine"}, "ICudaEngine"),
        ({"inspector"}, "EngineInspector"),
        ({"BuilderFlag"}, "BuilderFlag"),
        ({"base"}, "ILogger"),
    ],
)
def test_every_name_that_the_sources_use_exists(rtx: TensorRT, variables: set[str], owner: str | None) -> None:
    used = names_on(variables)
    assert used, "the test looks at nothing"
    places: list[Any] = [getattr(rtx.module, owner)] if owner else [rtx.module]
    if owner == "IBuilderConfig":  # the refitter's serialisation settings are called `config` too
        places.append(tensorrt_lean.ISerializationConfig)
    strange = {"__version__", "__init__", "parent", "name", "is_file", "read_text", "partition", "splitlines", "lower"}
    missing = {name for name in used - strange if not any(hasattr(place, name) for place in places)}
    assert not missing


def test_names_given_as_text_exist(rtx: TensorRT) -> None:
    module = rtx.module
    for flag in ("VERSION_COMPATIBLE", "REFIT", "STRIP_PLAN", "TF32"):
        assert hasattr(module.BuilderFlag, flag)
    for kind in ("FLOAT", "HALF", "BF16", "INT8", "FP8"):
        assert hasattr(module.DataType, kind)
    for layer in ("MATRIX_MULTIPLY", "CONVOLUTION", "EINSUM", "ATTENTION_OUTPUT", "DEQUANTIZE"):
        assert hasattr(module.LayerType, layer)
    assert {"parse_from_file", "num_errors", "get_error"} <= set(dir(module.OnnxParser))
    assert {"refit_from_file", "num_errors", "get_error"} <= set(dir(module.OnnxParserRefitter))
    assert {"desc", "node_name", "node_operator"} <= set(dir(module.ParserError))


@pytest.mark.parametrize("owner", RUNTIME)
def test_the_lean_runtime_of_tensorrt_11_has_the_names(owner: str) -> None:
    assert tensorrt_lean.__version__.startswith("11.")
    assert {name for name in RUNTIME[owner] if not hasattr(getattr(tensorrt_lean, owner), name)} == set()


@pytest.mark.parametrize(
    ("call", "arguments"),
    [
        ("Builder.create_network", "flags"),
        ("Builder.build_serialized_network", "network, config"),
        ("IBuilderConfig.set_compute_capability", "compute_capability, index"),
        ("IBuilderConfig.set_memory_pool_limit", "pool, pool_size"),
        ("IBuilderConfig.set_timing_cache", "cache, ignore_mismatch"),
        ("IBuilderConfig.create_timing_cache", "serialized_timing_cache"),
        ("IOptimizationProfile.set_shape", "input, min, opt, max"),
        ("OnnxParser.parse_from_file", "model"),
        ("OnnxParserRefitter.refit_from_file", "model"),
        ("EngineInspector.get_engine_information", "format"),
        ("ICudaEngine.serialize_with_config", "arg0"),
    ],
)
def test_signatures_are_those_that_are_called(rtx: TensorRT, call: str, arguments: str) -> None:
    """A binding's own signature is the first line of its documentation."""
    owner, name = call.split(".")
    line = getattr(getattr(rtx.module, owner), name).__doc__.strip().splitlines()[0]
    inside = line[line.index("(") + 1 : line.rindex(") ->")]
    assert re.findall(r"(\w+): ", inside)[1:] == arguments.split(", ")


def test_what_the_library_can_do_is_read_from_it(rtx: TensorRT) -> None:
    can = rtx.features
    assert {"75", "80", "86", "89", "120"} <= set(can.capabilities)
    assert (can.timing_cache, can.version_compatible, can.hardware_levels) == (False, False, ())
    assert can.refit
    assert can.strip
    lean = TensorRT("trt", tensorrt_lean, tensorrt_lean.__version__).features
    assert lean.hardware_levels == ("ampere+", "same-capability")
    assert lean.version_compatible
    assert lean.capabilities == ()


def fake_module(name: str, version: str) -> types.ModuleType:
    module = types.ModuleType(name)
    module.__version__ = version  # type: ignore[attr-defined]
    return module


def test_an_absent_library_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_libs", "tensorrt_rtx_bindings"):
        monkeypatch.delitem(sys.modules, name, raising=False)

    def absent(name: str) -> Any:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(
        BackendError, match=r"target trt needs tensorrt, which is not installed; pip install '.*\[trt\]"
    ):
        load_tensorrt("trt")
    with pytest.raises(
        BackendError,
        match=r"target trt-rtx needs tensorrt-rtx, which is not installed; pip install 'vtr-runtime\[trt-rtx\]'$",
    ):
        load_tensorrt("trt-rtx")


@pytest.mark.parametrize(
    "error",
    [
        ImportError("libnvinfer.so.10: cannot open shared object file"),
        ModuleNotFoundError("No module named 'tensorrt_bindings'", name="tensorrt_bindings"),
        OSError("libcudart.so.12: wrong ELF class"),
    ],
)
def test_a_library_that_cannot_load_is_told_apart(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def broken(_: str) -> Any:
        raise error

    monkeypatch.setattr(importlib, "import_module", broken)
    with pytest.raises(BackendError, match=rf"tensorrt is installed and cannot be loaded \({re.escape(str(error))}\)"):
        load_tensorrt("trt")


@pytest.mark.parametrize(
    ("version", "sentence"),
    [
        ("8.5.2.2", r"tensorrt 8\.5\.2\.2 is installed, and target trt needs 10 or 11; pip install"),
        ("12.0.0", r"tensorrt 12\.0\.0 is installed, and target trt needs 10 or 11"),
        ("unknown", r"tensorrt unknown is installed, and target trt needs 10 or 11"),
        ("10.2.0.19", r"tensorrt 10\.2\.0\.19 is installed, and that release is known to be faulty"),
    ],
)
def test_a_wrong_version_is_named(monkeypatch: pytest.MonkeyPatch, version: str, sentence: str) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", fake_module("tensorrt", version))
    with pytest.raises(BackendError, match=sentence):
        load_tensorrt("trt")


@pytest.mark.parametrize("version", ["10.3.0", "10.16.1.11", "11.4.1.9"])
def test_both_majors_are_taken(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", fake_module("tensorrt", version))
    assert load_tensorrt("trt").version == version


def test_the_log_keeps_errors_and_writes_the_rest(rtx: TensorRT, tmp_path: Path) -> None:
    log = BuilderLog(rtx, tmp_path / "build.log")
    severity = rtx.module.ILogger.Severity
    log.step("text")
    log.logger.log(severity.WARNING, "careful")
    log.logger.log(severity.ERROR, "it failed")
    log.logger.log(severity.VERBOSE, "chatter")
    assert log.errors == ["it failed"]
    log.step("video")
    assert log.errors == []
    log.close()
    assert (tmp_path / "build.log").read_text() == "== text\n[WARNING] careful\n[ERROR] it failed\n== video\n"


def test_without_a_driver_there_is_no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_module, "DRIVER_LIBRARIES", ("libno-such-driver.so",))
    assert read_device() is None


class FakeDriver:
    """Stands in for libcuda: answers as the driver of an Orin would."""

    ATTRIBUTES = {18: 1, 75: 8, 76: 7}  # noqa: RUF012

    def __init__(self, status: int = 0) -> None:
        self.status, self.contexts = status, 0

    def cuInit(self, _: int) -> int:  # noqa: N802
        return self.status

    def cuDeviceGet(self, handle: Any, index: int) -> int:  # noqa: N802
        handle._obj.value = index
        return 0 if index == 0 else 101

    def cuDeviceGetName(self, name: Any, *_: Any) -> int:  # noqa: N802
        name.value = b"Orin"
        return 0

    def cuDeviceTotalMem_v2(self, total: Any, _: Any) -> int:  # noqa: N802
        total._obj.value = 8 << 30
        return 0

    def cuDriverGetVersion(self, version: Any) -> int:  # noqa: N802
        version._obj.value = 12060
        return 0

    def cuDeviceGetAttribute(self, value: Any, attribute: int, _: Any) -> int:  # noqa: N802
        value._obj.value = self.ATTRIBUTES[attribute]
        return 0

    def cuDevicePrimaryCtxRetain(self, *_: Any) -> int:  # noqa: N802
        self.contexts += 1
        return 0

    def cuCtxPushCurrent_v2(self, _: Any) -> int:  # noqa: N802
        return 0

    def cuMemGetInfo_v2(self, free: Any, total: Any) -> int:  # noqa: N802
        free._obj.value, total._obj.value = 3 << 30, 8 << 30
        return 0

    def cuCtxPopCurrent_v2(self, _: Any) -> int:  # noqa: N802
        return 0

    def cuDevicePrimaryCtxRelease_v2(self, _: Any) -> int:  # noqa: N802
        self.contexts -= 1
        return 0


def test_the_device_is_read_from_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = FakeDriver()
    monkeypatch.setattr(device_module, "open_driver", lambda: driver)
    assert read_device() == DeviceInfo("Orin", "87", "12.6", 8 << 30, 3 << 30, True)
    assert driver.contexts == 0
    assert read_device(1) is None
    monkeypatch.setattr(device_module, "open_driver", lambda: FakeDriver(status=100))
    assert read_device() is None


def test_the_platform_is_system_and_architecture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.system", lambda: "Windows")
    monkeypatch.setattr("platform.machine", lambda: "AMD64")
    assert host_platform() == "windows-x86_64"
