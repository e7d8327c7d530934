"""From a backend's name to the backend, or to the reason why it cannot be had; and what `auto` takes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ..bundle import Bundle
from ..engines.record import ENGINES, EngineRecord, find_engines, misfit
from ..errors import UsageError
from ..manifest import Manifest
from .base import Backend, BackendOptions, GraphBackend
from .environment import ORT_PACKAGES, RTX_PLUGIN, Environment, read_environment

BackendName = Literal["onnx-cpu", "onnx-cuda", "onnx-tensorrt", "onnx-trt-rtx", "trt", "trt-rtx", "openvino"]
BACKENDS: tuple[BackendName, ...] = (
    "onnx-cpu",
    "onnx-cuda",
    "onnx-tensorrt",
    "onnx-trt-rtx",
    "trt",
    "trt-rtx",
    "openvino",
)
# What auto tries, best first. onnx-tensorrt is not among them: it builds for minutes when it is first loaded, which
# `vtr-runtime build --target trt` does once.
ORDER: tuple[BackendName, ...] = ("trt", "trt-rtx", "onnx-cuda", "onnx-trt-rtx", "openvino", "onnx-cpu")
# The first release that says which node runs where; without that nothing is known of a fallback.
TELLS_COVERAGE = (1, 24)
NO_GPU = "no NVIDIA GPU was found"


@dataclass(frozen=True)
class Choice:
    """What auto took, why, and why nothing that is better."""

    name: BackendName
    reason: str
    passed_over: tuple[tuple[str, str], ...] = ()

    @property
    def summary(self) -> str:
        reasons: dict[str, list[str]] = {}
        for name, why in self.passed_over:
            reasons.setdefault(why, []).append(name)
        others = [f"{', '.join(names)}: {why}" for why, names in reasons.items()]
        return f"{self.name} (auto: {'; not '.join([self.reason, *others])})"


def open_backend(bundle: Bundle, name: str = "auto", options: BackendOptions | None = None) -> tuple[Backend, str]:
    """Open what was asked for and say in words what runs.

    UnavailableError for what this machine has not, PrecisionError for a precision that the engine has not, BackendError
    for an engine or graph that cannot be loaded; nothing else is taken in its place."""
    options = options or BackendOptions()
    if name not in ("auto", *BACKENDS):
        raise UsageError(f"there is no backend '{name}'; choose from: auto, {', '.join(BACKENDS)}")
    if options.engine_dir is not None and not options.engine_dir.is_dir():
        raise UsageError(
            f"{options.engine_dir} is not a folder; give the one that vtr-runtime build wrote engines into"
        )
    asked = next((known for known in BACKENDS if known == name), None)
    choice = choose_here(bundle, options) if asked is None else Choice(asked, "asked for")
    backend = _open(bundle, choice.name, options)
    summary = f"{name} (asked for)" if asked else choice.summary
    return backend, "; ".join([summary, *backend.notes])


def choose_here(bundle: Bundle, options: BackendOptions) -> Choice:
    """What auto takes on this machine."""
    engines = [record for _, record in find_engines(options.engine_dir or bundle.folder / ENGINES)]
    environment = read_environment(options.device, {record.target for record in engines})
    return choose(bundle.manifest, engines, environment)


def choose(manifest: Manifest, engines: Sequence[EngineRecord], environment: Environment) -> Choice:
    """The first of ORDER against which nothing speaks; the last one where something speaks against each.

    What the bundle holds an engine for goes first, and a GPU before the CPU. Of the two engines for the CPU, OpenVINO
    is taken where the bundle was made for it: it is the faster one for video and the slower one for sentences
    (docs/throughput.md), so without its engine the graphs run where they were proved at export."""
    passed_over: list[tuple[str, str]] = []
    for name in ORDER:
        objection = _objection(name, manifest, engines, environment)
        if not objection:
            return Choice(name, _reason(name, manifest, engines, environment), tuple(passed_over))
        passed_over.append((name, objection))
    # Opening it says what to install or to export.
    last: BackendName = "openvino" if _is_hint(manifest) else "onnx-cpu"
    others = tuple((name, why) for name, why in passed_over if name != last)
    return Choice(last, "nothing else is left", others)


def _is_hint(manifest: Manifest) -> bool:
    return manifest.precision != manifest.graph_precision


def _objection(name: str, manifest: Manifest, engines: Sequence[EngineRecord], environment: Environment) -> str:
    """Why not this one, in words; empty where nothing speaks against it."""
    if name in ("trt", "trt-rtx"):
        return NO_GPU if environment.device is None else _engine_objection(name, manifest, engines, environment)
    if name in ("onnx-cuda", "onnx-trt-rtx"):
        return _provider_objection(name, manifest, environment)
    if name == "openvino":
        return _openvino_objection(manifest, engines, environment)
    if _is_hint(manifest):
        return f"{manifest.precision} is a hint in this bundle, and it takes none"
    return "" if _has_onnxruntime(environment) else "onnxruntime is not installed"


def _engine_objection(
    target: str, manifest: Manifest, engines: Sequence[EngineRecord], environment: Environment
) -> str:
    """Of the engines of a target: why the first one does not serve; empty where any does."""
    mine = [record for record in engines if record.target == target and record.precision == manifest.precision]
    if not mine:
        return f"the bundle holds no engine of it in {manifest.precision}"
    if target not in environment.libraries:
        return "its library is not installed"
    found = [misfit(record, manifest, environment.device, environment.libraries[target]) for record in mine]
    return "" if "" in found else f"engine {mine[0].id} {found[0]}"


def _provider_objection(name: str, manifest: Manifest, environment: Environment) -> str:
    if environment.device is None:
        return NO_GPU
    if _is_hint(manifest):
        return f"{manifest.precision} is a hint in this bundle, and it takes none"
    sm = int(environment.device.sm)
    if manifest.graph_precision == "bf16" and sm < 80:
        return f"bf16 begins with SM80, and this GPU is SM{sm}"
    if name == "onnx-trt-rtx":
        if RTX_PLUGIN not in environment.libraries:
            return f"{RTX_PLUGIN} is not installed"
        return "" if sm in (86, 89) or sm >= 120 else f"TensorRT for RTX does not run on SM{sm}"
    package = environment.libraries.get("onnxruntime-gpu")
    if package is None:
        return "onnxruntime-gpu is not installed"
    if tuple(map(int, re.findall(r"[0-9]+", package)[:2])) < TELLS_COVERAGE:
        return f"onnxruntime-gpu {package} cannot tell which nodes it runs; 1.24 can"
    return ""


def _openvino_objection(manifest: Manifest, engines: Sequence[EngineRecord], environment: Environment) -> str:
    if "openvino" not in environment.libraries:
        return "openvino is not installed"
    if manifest.graph_precision in ("fp16", "bf16"):
        return f"the graphs are {manifest.graph_precision}, and it takes fp32 graphs and a hint"
    if _is_hint(manifest) or not _has_onnxruntime(environment):
        return ""
    return _engine_objection("openvino", manifest, engines, environment)


def _has_onnxruntime(environment: Environment) -> bool:
    return any(package in environment.libraries for package in ORT_PACKAGES)  # each runs on the CPU


def _reason(name: str, manifest: Manifest, engines: Sequence[EngineRecord], environment: Environment) -> str:
    if name == "openvino" and _is_hint(manifest):
        return f"{manifest.precision} is a hint in this bundle, which OpenVINO alone takes"
    held = [record.id for record in engines if record.target == name and record.precision == manifest.precision]
    if held:
        where = f" for this {environment.device.name}" if environment.device and name != "openvino" else ""
        return f"the bundle holds the engine {held[0]}{where}"
    if environment.device is not None and name in ("onnx-cuda", "onnx-trt-rtx"):
        return f"it runs the graphs on this {environment.device.name}"
    return "it runs the graphs as they are"


def _open(bundle: Bundle, name: BackendName, options: BackendOptions) -> GraphBackend:
    if name == "openvino":
        from .openvino import OpenVinoBackend

        return OpenVinoBackend(bundle, threads=options.threads, engine_dir=options.engine_dir)
    if name == "trt" or name == "trt-rtx":
        from .tensorrt import TensorRTBackend

        return TensorRTBackend(bundle, name, options)
    if name == "onnx-cpu":
        from .onnx_runtime import OnnxRuntimeBackend

        return OnnxRuntimeBackend(bundle, threads=options.threads, spin=options.spin)
    from .onnx_gpu import OnnxGpuBackend

    return OnnxGpuBackend(bundle, name, options)
