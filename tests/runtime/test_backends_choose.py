"""What auto takes, why, and what is said of the rest; and what is asked for by name and cannot be had."""

from __future__ import annotations

from pathlib import Path

import pytest

from vtr_runtime import load
from vtr_runtime.backends import BACKENDS, BackendOptions, choose, open_backend
from vtr_runtime.backends.choose import NO_GPU
from vtr_runtime.backends.environment import RTX_PLUGIN, Environment, read_environment
from vtr_runtime.bundle import open_bundle
from vtr_runtime.engines.device import DeviceInfo, host_platform, read_device
from vtr_runtime.engines.record import EngineRecord, core_hash
from vtr_runtime.errors import UnavailableError
from vtr_runtime.manifest import Manifest

ADA = DeviceInfo("RTX 4090", "89", "13.0", 24 << 30, 20 << 30, False)
HOPPER = DeviceInfo("H100", "90", "13.0", 80 << 30, 70 << 30, False)
TURING = DeviceInfo("T4", "75", "13.0", 15 << 30, 14 << 30, False)
CPU_LIBRARIES = {"onnxruntime": "1.31.1", "openvino": "2026.4.1"}
EVERYTHING = {"onnxruntime-gpu": "1.31.1", "openvino": "2026.4.1", "trt": "11.4", "trt-rtx": "1.7", RTX_PLUGIN: ""}


@pytest.fixture(scope="module")
def manifest(small_bundle: Path) -> Manifest:
    return open_bundle(small_bundle).manifest


def engine(manifest: Manifest, target: str, version: str, sm: tuple[str, ...] = (), **changes: str) -> EngineRecord:
    values = {
        "id": f"{target}-fp32", "target": target, "core": core_hash(manifest), "precision": "fp32",
        "precision_used": {}, "library": target, "library_version": version, "capabilities": sm,
        "platform": host_platform(), "files": {}, "seconds": 1,
    }  # fmt: skip
    return EngineRecord.model_validate({**values, **changes})


# The bundle's precision and its graphs', engines as (target, version, capabilities), the machine; what auto takes, a
# part of the reason, and parts of what it says of others.
Row = tuple[tuple[str, str], list[tuple[str, str, tuple[str, ...]]], Environment, str, str, dict[str, str]]
TABLE: dict[str, Row] = {
    "a GPU, its engine, its library": (
        ("fp32", "fp32"), [("trt", "11.4", ("89",))], Environment(ADA, EVERYTHING),
        "trt", "the bundle holds the engine trt-fp32 for this RTX 4090", {},
    ),
    "an engine of another version": (
        ("fp32", "fp32"), [("trt", "10.3", ("89",))], Environment(ADA, EVERYTHING),
        "onnx-cuda", "it runs the graphs on this RTX 4090",
        {"trt": "was built with trt 10.3, and 11.4 is installed", "trt-rtx": "no engine of it in fp32"},
    ),
    "an engine for another GPU, and one that fits": (
        ("fp32", "fp32"), [("trt", "11.4", ("86",)), ("trt-rtx", "1.7", ("86", "89"))], Environment(ADA, EVERYTHING),
        "trt-rtx", "the bundle holds the engine trt-rtx-fp32",
        {"trt": "was built for SM86, and this GPU is RTX 4090 of SM89"},
    ),
    "an engine without its library": (
        ("fp32", "fp32"), [("trt", "11.4", ("89",))], Environment(ADA, CPU_LIBRARIES),
        "onnx-cpu", "as they are",
        {"trt": "its library is not installed", "onnx-cuda": "onnxruntime-gpu is not installed",
         "onnx-trt-rtx": f"{RTX_PLUGIN} is not installed", "openvino": "no engine of it in fp32"},
    ),
    "a GPU without an engine": (("fp32", "fp32"), [], Environment(HOPPER, EVERYTHING), "onnx-cuda", "on this H100", {}),
    "an onnxruntime-gpu that cannot count": (
        ("fp32", "fp32"), [], Environment(ADA, {"onnxruntime-gpu": "1.23.2"}),
        "onnx-cpu", "as they are", {"onnx-cuda": "onnxruntime-gpu 1.23.2 cannot tell which nodes it runs"},
    ),
    "the plug-in on its GPU": (
        ("fp32", "fp32"), [], Environment(ADA, {**CPU_LIBRARIES, RTX_PLUGIN: ""}),
        "onnx-trt-rtx", "on this RTX 4090", {"onnx-cuda": "not installed"},
    ),
    "the plug-in on a GPU that it does not run on": (
        ("fp32", "fp32"), [], Environment(HOPPER, {**CPU_LIBRARIES, RTX_PLUGIN: ""}),
        "onnx-cpu", "as they are", {"onnx-trt-rtx": "TensorRT for RTX does not run on SM90"},
    ),
    "bf16 on an old GPU": (
        ("bf16", "bf16"), [], Environment(TURING, {"onnxruntime-gpu": "1.31.1"}),
        "onnx-cpu", "as they are", {"onnx-cuda": "bf16 begins with SM80, and this GPU is SM75"},
    ),
    "bf16 as a hint, on a GPU": (
        ("bf16", "fp32"), [], Environment(ADA, EVERYTHING),
        "openvino", "bf16 is a hint in this bundle, which OpenVINO alone takes", {"onnx-cuda": "it takes none"},
    ),
    "bf16 as a hint, without OpenVINO": (
        ("bf16", "fp32"), [], Environment(None, {"onnxruntime": "1.31.1"}),
        "openvino", "nothing else is left", {"onnx-cpu": "bf16 is a hint in this bundle"},
    ),
    "a CPU": (
        ("fp32", "fp32"), [], Environment(None, CPU_LIBRARIES),
        "onnx-cpu", "as they are", {"trt": NO_GPU, "onnx-cuda": NO_GPU, "openvino": "holds no engine of it in fp32"},
    ),
    "a CPU and OpenVINO's engine": (
        ("fp32", "fp32"), [("openvino", "2026.4.1", ())], Environment(None, CPU_LIBRARIES),
        "openvino", "the bundle holds the engine openvino-fp32", {"trt": NO_GPU},
    ),
    "OpenVINO's engine of a newer version": (
        ("fp32", "fp32"), [("openvino", "2027.0", ())], Environment(None, CPU_LIBRARIES),
        "onnx-cpu", "as they are", {"openvino": "was built with openvino 2027.0, and 2026.4.1 is installed"},
    ),
    "OpenVINO alone": (
        ("fp32", "fp32"), [], Environment(None, {"openvino": "2026.4.1"}), "openvino", "as they are", {},
    ),
    "the GPU's package on a CPU": (
        ("fp32", "fp32"), [], Environment(None, {"onnxruntime-gpu": "1.31.1", "openvino": "2026.4.1"}),
        "onnx-cpu", "as they are", {"openvino": "holds no engine of it"},
    ),
    "fp16 on a CPU": (
        ("fp16", "fp16"), [], Environment(None, CPU_LIBRARIES),
        "onnx-cpu", "as they are", {"openvino": "the graphs are fp16, and it takes fp32 graphs and a hint"},
    ),
    "nothing": (
        ("fp32", "fp32"), [], Environment(), "onnx-cpu", "nothing else is left", {"openvino": "is not installed"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("row", TABLE.values(), ids=TABLE)
def test_auto(manifest: Manifest, row: Row) -> None:
    (precision, graphs), built, machine, name, reason, passed_over = row
    changed = manifest.model_copy(update={"precision": precision, "graph_precision": graphs})
    found = choose.choose(changed, [engine(manifest, *parts) for parts in built], machine)
    assert found.name == name
    assert reason in found.reason
    said = dict(found.passed_over)
    for other, why in passed_over.items():
        assert why in said[other], other
    assert name not in said
    assert found.summary.startswith(f"{name} (auto: {found.reason}")
    assert all(why in found.summary for why in said.values())


def test_those_passed_over_for_one_reason_are_named_together(manifest: Manifest) -> None:
    found = choose.choose(manifest, [], Environment(None, CPU_LIBRARIES))
    assert f"not trt, trt-rtx, onnx-cuda, onnx-trt-rtx: {NO_GPU}; not openvino: the bundle" in found.summary


def test_the_machine_is_read_as_it_is() -> None:
    found = read_environment(targets=("openvino", "trt"))
    assert found.device == read_device()
    assert "onnxruntime" in found.libraries
    import openvino

    assert found.libraries["openvino"] == openvino.__version__
    assert read_environment().libraries["openvino"] in openvino.__version__


GPU_BACKENDS = [name for name in BACKENDS if name not in ("onnx-cpu", "openvino")]


@pytest.mark.skipif(read_device() is not None, reason="this machine has a GPU")
@pytest.mark.parametrize("name", GPU_BACKENDS)
def test_a_gpu_that_is_not_there_is_one_sentence(small_bundle: Path, name: str) -> None:
    with pytest.raises(UnavailableError, match=f"backend {name} needs an NVIDIA GPU with its driver, and no GPU 0"):
        load(small_bundle, name)
    with pytest.raises(UnavailableError, match="no GPU 2 was found"):
        open_backend(open_bundle(small_bundle), name, BackendOptions(device=2))


def test_every_backend_has_a_place_in_the_order_but_the_one_that_builds_while_loading() -> None:
    assert set(BACKENDS) - set(choose.ORDER) == {"onnx-tensorrt"}
