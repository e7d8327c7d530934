"""Compiling a graph by OpenVINO in a precision that is asked for and read back.

Without a hint OpenVINO runs an fp32 model in bf16 on processors that have it, and says nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any
from xml.etree import ElementTree

from .errors import BackendError, UnavailableError
from .manifest import Precision

DEVICE = "CPU"
HINTS: dict[Precision, str] = {"fp32": "f32", "bf16": "bf16"}
# The plug-in's names of its own precisions.
NAMES = {"f32": "fp32", "bf16": "bf16", "f16": "fp16", "i8": "int8", "u8": "int8"}
PRODUCTS = frozenset({"FullyConnected", "MatMul", "Convolution", "ScaledDotProductAttention"})


def import_openvino() -> Any:
    try:
        import openvino
    except ImportError as error:
        raise UnavailableError(
            f"OpenVINO is not installed ({error}); install it: pip install 'vtr-runtime[openvino]'"
        ) from error
    return openvino


_core_lock = Lock()


def shared_core() -> Any:
    """The process's only `openvino.Core`: it serves any thread, and is never destroyed.

    The CPU plug-in of each Core sets up an alternate signal stack and puts the earlier one back when it goes. Two that
    go in the order in which they came leave the thread with the first one's, which is freed by then, and the next
    signal with a handler, such as Ctrl-C, kills the process."""
    with _core_lock:
        return _make_core()


@cache
def _make_core() -> Any:
    return import_openvino().Core()


def write_ir(onnx: Path, path: Path, precise: Collection[str] = ()) -> None:
    """Convert an ONNX file to IR (`path`, .xml, and its .bin).

    The nodes `precise` are marked to run in fp32 whatever the hint: an attribute of the IR, which the plug-in honours
    for all layers but fully connected ones."""
    openvino = import_openvino()
    openvino.save_model(shared_core().read_model(str(onnx)), str(path), compress_to_fp16=False)
    if not precise:
        return
    tree = ElementTree.parse(path)
    marked = set()
    for layer in tree.getroot().iter("layer"):
        # What the reader makes of one node is called after it: node_Conv_7, node_Conv_7/WithoutBiases.
        name = layer.get("name", "").split("/")[0]
        if name in precise:
            marked.add(name)
            info = layer.find("rt_info")
            if info is None:
                info = ElementTree.Element("rt_info")
                layer.insert(1 if layer.find("data") is not None else 0, info)
            ElementTree.SubElement(info, "attribute", name="precise", version="0")
    if lost := sorted(set(precise) - marked):
        raise BackendError(f"OpenVINO {openvino.__version__} has no layers for {', '.join(lost)} of {onnx.name}")
    tree.write(path)


def cpu_has_bf16() -> bool:
    """Whether OpenVINO has kernels for bf16 on this CPU."""
    return "BF16" in shared_core().get_property(DEVICE, "OPTIMIZATION_CAPABILITIES")


def compile_graph(path: Path, precision: Precision, *, threads: int | None = None) -> Any:
    """Compile an ONNX file or IR for this CPU. BackendError when it would run in another precision than asked for."""
    openvino = import_openvino()
    core = shared_core()
    hint = _hint(precision, has_bf16=cpu_has_bf16())
    settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": hint, "PERFORMANCE_HINT": "LATENCY"}
    if threads is not None:
        settings["INFERENCE_NUM_THREADS"] = threads
    try:
        compiled = core.compile_model(core.read_model(str(path)), DEVICE, settings)
    except RuntimeError as error:
        raise BackendError(f"OpenVINO {openvino.__version__} cannot compile {path}: {error}") from error
    found = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
    if found != hint:
        raise BackendError(f"OpenVINO was asked to run {path.name} in {hint} and would run it in {found}")
    return compiled


def _hint(precision: Precision, *, has_bf16: bool) -> str:
    if precision == "int8":  # is in the graph; what lies between its products runs in the fast type that there is
        return "bf16" if has_bf16 else "f32"
    if precision not in HINTS:
        raise BackendError(f"OpenVINO's CPU plug-in is not used for {precision}; export the bundle in fp32 or bf16")
    if precision == "bf16" and not has_bf16:
        raise BackendError("this CPU has no bf16 (AVX512-BF16 or AMX), and OpenVINO would emulate it; use fp32 or int8")
    return HINTS[precision]


def products_by_precision(compiled: Any) -> dict[str, int]:
    """How many matrix products, convolutions and fused attentions run in each precision, as the plug-in reports."""
    found: Counter[str] = Counter()
    for node in compiled.get_runtime_model().get_ordered_ops():
        info = node.get_rt_info()
        if str(info["layerType"].astype(str)) in PRODUCTS:
            name = str(info["runtimePrecision"].astype(str))
            found[NAMES.get(name, name)] += 1
    return dict(found)


def operators(compiled: Any) -> dict[str, int]:
    """How many layers of each kind the compiled graph has: what was fused shows by its name or is gone."""
    layers = (node.get_rt_info()["layerType"].astype(str) for node in compiled.get_runtime_model().get_ordered_ops())
    return dict(Counter(map(str, layers)))
