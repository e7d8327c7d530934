"""Engines of TensorRT without the GPU that runs them: is what the bundle holds whole, and its own; do its graphs build?

TensorRT for RTX parses and builds for GPUs that are not there. That says that a graph can be run, and nothing of what
it gives: no result of these stands for an embedding."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

from vtr_runtime.bundle import Bundle
from vtr_runtime.engines.profiles import ProfileRequest, Range, graph_profiles
from vtr_runtime.engines.record import ENGINES, EngineRecord, PrecisionUsed, find_engines, flaw
from vtr_runtime.engines.tensorrt_build import BuildOptions, capabilities_of, check_options, graph_requests, run_request
from vtr_runtime.engines.tensorrt_library import TensorRT, TensorRTTarget, load_tensorrt, make_logger
from vtr_runtime.errors import BackendError, UnavailableError
from vtr_runtime.precision import precision_of_graph
from vtr_runtime.stages import BY_NAME

from .hosts import Host
from .judge import not_run, raised
from .results import Result

STAGE = "engine"
TARGETS = ("trt", "trt-rtx")
# For one graph: ViT-B/32 takes half a minute on two cores.
BUILD_SECONDS = 3600.0


def check_engines(
    host: Host, bundle: Bundle, backend: str, batches: Sequence[int], *, build: bool = False
) -> Iterator[Result]:
    """A result a graph, for a backend that runs engines of TensorRT: of every engine that the bundle holds; where it
    holds none, or with `build`, whether TensorRT for RTX builds the graph. `batches` are the profile's.

    What the library's own check of a plan's header says without a GPU is asked too, where it is the one that built."""
    if backend not in TARGETS:
        return
    target = cast("TensorRTTarget", backend)
    try:
        found = find_engines(bundle.folder / ENGINES)
    except BackendError as error:
        yield raised(host, STAGE, "engines", error)
        return
    manifest = bundle.manifest
    mine = [pair for pair in found if (pair[1].target, pair[1].precision) == (target, manifest.precision)]
    for folder, record in mine:
        yield from _check_held(host, bundle, folder, record)
    if mine and not build:
        return
    if target == "trt":
        yield not_run(host, STAGE, "builds", "TensorRT builds on the GPU that runs the engine alone: vtr-runtime build")
        return
    yield from _check_builds(host, bundle, target, batches)


def _check_held(host: Host, bundle: Bundle, folder: Path, record: EngineRecord) -> Iterator[Result]:
    trt, of_all = _library(record.target), flaw(record, bundle.manifest, folder)
    for graph in bundle.manifest.graphs.named():
        case = f"{graph}, {record.id}"
        problem = of_all or _other_types(record, graph) or _header(record, folder / f"{graph}.plan", trt)
        if problem:
            yield raised(host, STAGE, case, BackendError(f"engine {record.id} {problem}"))
        else:
            yield _passed(host, case, f"built with {record.library} {record.library_version}, whole")


def _other_types(record: EngineRecord, graph: str) -> str:
    if f"{graph}.plan" not in record.files or graph not in record.precision_used:
        return f"holds no plan of {graph}"
    used, asked = record.precision_used[graph].counts, precision_of_graph(graph, record.precision)
    return f"has no matrix product of {graph} in {asked}" if used and asked not in used else ""


def _header(record: EngineRecord, plan: Path, trt: TensorRT | None) -> str:
    """What the library that built a plan says of its header; without a GPU it tells no more than that it is one."""
    if trt is None or trt.version != record.library_version or not hasattr(trt.module.Runtime, "get_engine_validity"):
        return ""
    runtime = trt.module.Runtime(make_logger(trt.module, lambda *_: None))
    with plan.open("rb") as file:
        _, why = runtime.get_engine_validity(file.read(runtime.engine_header_size))
    malformed = int(trt.module.EngineInvalidityDiagnostics.MALFORMED_ENGINE)
    return f"has in {plan.name} no plan of {trt.name} {trt.version}" if why & malformed else ""


def _library(target: str) -> TensorRT | None:
    try:
        return load_tensorrt(cast("TensorRTTarget", target))
    except UnavailableError:
        return None


def _check_builds(host: Host, bundle: Bundle, target: TensorRTTarget, batches: Sequence[int]) -> Iterator[Result]:
    manifest, sizes = bundle.manifest, sorted(batches)
    try:
        trt = load_tensorrt(target)
    except UnavailableError as error:
        yield not_run(host, STAGE, "builds", str(error))
        return
    options = BuildOptions(profiles=ProfileRequest(batch=Range(sizes[0], sizes[len(sizes) // 2], sizes[-1])))
    check_options(options, trt, manifest.precision)
    capabilities = capabilities_of(options, trt)
    gpus = ", ".join(f"SM{sm}" for sm in capabilities)
    profiles = graph_profiles(manifest, options.profiles)
    with tempfile.TemporaryDirectory(prefix="vtr-conformance-") as folder:
        for request in graph_requests(bundle, trt, options, profiles, capabilities, Path(folder)):
            case = f"{request.name}, for {gpus}"
            try:
                used = run_request(request, f"{trt.name} {trt.version}", seconds=BUILD_SECONDS)
            except BackendError as error:
                yield raised(host, STAGE, case, error)
            else:
                yield _passed(host, case, f"builds with {trt.name} {trt.version}: {_products(used)}")
            request.plan.unlink(missing_ok=True)


def _products(used: PrecisionUsed) -> str:
    counts = ", ".join(f"{count} in {kind}" for kind, count in used.counts.items())
    return f"matrix products {counts}" + (f", attention: {used.attention}" if used.attention else "")


def _passed(host: Host, case: str, what: str) -> Result:
    known = BY_NAME[STAGE]
    gate = known.gate(host.precision)
    verdict = (0.0, gate.limit, what, known.hint, gate.unit, host.precision)
    return Result(host.name, host.backend, STAGE, case, "pass", *verdict)
