"""A bundle's graphs -> an engine folder, for TensorRT on this machine's GPU or for TensorRT for RTX on several."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from ..bundle import Bundle
from ..errors import BackendError, StorageError, UsageError
from ..precision import Precision, precision_of_graph
from ..publish import check_output, staged_folder
from .device import DeviceInfo, host_platform, read_device
from .memory import gib, host_memory_free, memory_shortage, predict_memory
from .profiles import Profile, ProfileRequest, graph_profiles, input_shapes
from .record import EngineRecord, PrecisionUsed, Shapes, core_hash, file_entries, write_record
from .tensorrt_graph import GraphRequest, GraphResult
from .tensorrt_library import TensorRT, TensorRTTarget, load_tensorrt

# GeForce and RTX workstation cards: Ampere, Ada, Blackwell.
DEFAULT_CAPABILITIES = ("86", "89", "120")
OLDEST_BF16 = 80
BUILD_LOG = "build.log"

Say = Callable[[str], None]


@dataclass(frozen=True)
class BuildOptions:
    """What the user may set; `check_options` refuses what a target cannot honour. `workspace` is in bytes."""

    profiles: ProfileRequest = field(default_factory=ProfileRequest)
    capabilities: tuple[str, ...] | None = None  # --sm, of trt-rtx
    workspace: int | None = None
    timing_cache: Path | None = None
    version_compatible: bool = False
    hardware: Literal["none", "ampere+", "same-capability"] = "none"
    refit: bool = False
    strip: bool = False
    level: int | None = None


def check_options(options: BuildOptions, trt: TensorRT, precision: Precision) -> None:
    """Refuse what the library or the target does not honour, with the reason."""
    target, can = trt.target, trt.features
    wrong = {
        "--sm": target == "trt" and options.capabilities is not None and "builds for the GPU that is there",
        "--timing-cache": options.timing_cache is not None and not can.timing_cache
        and "times no kernels when it builds; its kernels are chosen, and cached, where the engine runs",
        "--version-compatible": options.version_compatible and not can.version_compatible
        and "has no lean runtime to load such an engine with",
        "--hardware-compatible": options.hardware != "none" and options.hardware not in can.hardware_levels
        and f"has not the level {options.hardware}" + (": give the GPUs with --sm" if target == "trt-rtx" else ""),
        "--refittable": options.refit and not can.refit and "cannot refit from ONNX",
        "--strip": options.strip and not can.strip and "cannot strip weights",
    }  # fmt: skip
    for option, reason in wrong.items():
        if reason:
            raise UsageError(f"{option} is not for target {target}: {trt.name} {trt.version} {reason}; leave it out")
    if options.level is not None and not 0 <= options.level <= 5:
        raise UsageError(f"--optimization-level {options.level} is not a level; give 0 to 5")
    for sm in capabilities_of(options, trt) if target == "trt-rtx" else ():
        if sm not in can.capabilities:
            raise UsageError(
                f"--sm {sm} is not built by {trt.name} {trt.version}; choose from {', '.join(can.capabilities)}"
            )
        if precision == "bf16" and int(sm) < OLDEST_BF16:
            raise UsageError(f"--sm {sm} has no bf16, which begins with SM80; leave it out, or export in fp16")


def capabilities_of(options: BuildOptions, trt: TensorRT) -> tuple[str, ...]:
    """Those asked for, each once, oldest first; of `trt` none: its GPU is the one that is there."""
    if trt.target == "trt":
        return ()
    return tuple(sorted(set(options.capabilities or DEFAULT_CAPABILITIES), key=lambda sm: (len(sm), sm)))


def engine_id(target: str, precision: str, capabilities: tuple[str, ...]) -> str:
    return f"{target}-{precision}-sm{'-'.join(capabilities)}"


def build_tensorrt(
    bundle: Bundle,
    target: TensorRTTarget,
    options: BuildOptions,
    *,
    engine_dir: Path,
    overwrite: bool = False,
    say: Say = lambda _: None,
) -> EngineRecord:
    """Build every graph of a bundle into `engine_dir/<id>`, which appears whole or not at all; gives its record.

    Raises UsageError for options, BackendError for library, device and builder. `say` is told each step."""
    trt = load_tensorrt(target)
    precision = bundle.manifest.precision
    check_options(options, trt, precision)
    profiles = graph_profiles(bundle.manifest, options.profiles)
    device = read_device()
    if target == "trt":
        _check_device(device, precision)
    capabilities = capabilities_of(options, trt) or ((device.sm,) if device else ())
    ident = engine_id(target, precision, capabilities)
    _make_engine_dir(engine_dir)
    check_output(engine_dir / ident, overwrite=overwrite)
    _say_memory(bundle, profiles, options, device, say)
    started = time.monotonic()
    with staged_folder(engine_dir / ident, overwrite=overwrite) as staged:
        shapes, used = _build_graphs(bundle, trt, options, profiles, capabilities, device, staged, say)
        record = EngineRecord(
            id=ident,
            target=target,
            core=core_hash(bundle.manifest),
            precision=precision,
            precision_used=used,
            library=trt.name,
            library_version=trt.version,
            capabilities=capabilities,
            driver=device.driver if device else None,
            platform=host_platform(),
            hardware_compatibility=options.hardware,
            version_compatible=options.version_compatible,
            profiles=shapes,
            settings=_settings(options),
            files=file_entries(staged),
            seconds=round(time.monotonic() - started, 3),
            log=BUILD_LOG,
        )
        write_record(staged, record)
    return record


def _check_device(device: DeviceInfo | None, precision: Precision) -> None:
    if device is None:
        raise BackendError(
            "target trt builds on the GPU that will run the engine, and no NVIDIA GPU with a driver was found; "
            "run this command on that machine, or build for several GPUs with --target trt-rtx"
        )
    if precision == "bf16" and int(device.sm) < OLDEST_BF16:
        raise BackendError(f"{device.name} is SM{device.sm}, and bf16 begins with SM80; export the bundle in fp16")


def _make_engine_dir(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"{path} cannot be made ({error.strerror}); give another folder with --engine-dir"
        ) from error


def _say_memory(
    bundle: Bundle, profiles: dict[str, tuple[Profile, ...]], options: BuildOptions, device: DeviceInfo | None, say: Say
) -> None:
    need = predict_memory(bundle, profiles, options.workspace)
    say(f"predicted memory: {gib(need.host)} of the host" + (f", {gib(need.device)} of the GPU" if device else ""))
    shortage = memory_shortage(need, device, host_memory_free())
    if shortage:
        say(f"warning: {shortage}")


def _settings(options: BuildOptions) -> dict[str, object]:
    values = asdict(options)
    values["profiles"] = {name: str(getattr(options.profiles, name)) for name in values["profiles"]}
    values["timing_cache"] = options.timing_cache.name if options.timing_cache else None
    return values


def _build_graphs(
    bundle: Bundle,
    trt: TensorRT,
    options: BuildOptions,
    profiles: dict[str, tuple[Profile, ...]],
    capabilities: tuple[str, ...],
    device: DeviceInfo | None,
    folder: Path,
    say: Say,
) -> tuple[dict[str, tuple[Shapes, ...]], dict[str, PrecisionUsed]]:
    """Each graph in its own process; by graph: the shapes of its profiles, and the types it runs in."""
    shapes: dict[str, tuple[Shapes, ...]] = {}
    used: dict[str, PrecisionUsed] = {}
    loadable = device is not None and device.sm in capabilities and not options.strip
    requests = graph_requests(bundle, trt, options, profiles, capabilities, folder, layers=loadable)
    for step, request in enumerate(requests, 1):
        started = time.monotonic()
        shapes[request.name] = request.profiles
        used[request.name] = run_request(request, f"{trt.name} {trt.version}")
        wanted = ", ".join(f"SM{sm}" for sm in capabilities)
        say(f"[{step}/{len(requests)}] {request.name}: built for {wanted} ... {time.monotonic() - started:.1f} s")
    return shapes, used


def graph_requests(
    bundle: Bundle,
    trt: TensorRT,
    options: BuildOptions,
    profiles: dict[str, tuple[Profile, ...]],
    capabilities: tuple[str, ...],
    folder: Path,
    *,
    layers: bool = False,
) -> list[GraphRequest]:
    """What is to be built of each graph of a bundle; plans and the log go into `folder`, and with `layers` the engine's
    own report of its layers, for which it must run here."""
    return [
        GraphRequest(
            target=trt.target,
            name=name,
            onnx=bundle.file(graph.file).resolve(),
            plan=folder / f"{name}.plan",
            log=folder / BUILD_LOG,
            layers=folder / f"{name}.layers.json" if layers else None,
            profiles=tuple(input_shapes(graph, profile) for profile in profiles[name]),
            precision=precision_of_graph(name, bundle.manifest.precision),
            capabilities=capabilities if trt.target == "trt-rtx" else (),
            workspace=options.workspace,
            timing_cache=options.timing_cache,
            version_compatible=options.version_compatible,
            hardware=options.hardware,
            refit=options.refit,
            strip=options.strip,
            level=options.level,
        )
        for name, graph in bundle.manifest.graphs.named().items()
    ]


def run_request(request: GraphRequest, library: str, *, seconds: float | None = None) -> PrecisionUsed:
    """Build one graph in a child process; its end, of whatever kind, is a result or one sentence. It is killed after
    `seconds`, where they are given.

    What the native library prints goes to the log."""
    with tempfile.TemporaryDirectory() as folder:
        asked, answer = Path(folder) / "request.json", Path(folder) / "result.json"
        asked.write_text(request.model_dump_json(), encoding="utf-8")
        command = [sys.executable, "-m", "vtr_runtime.engines.tensorrt_graph", str(asked), str(answer)]
        try:
            with request.log.open("a", encoding="utf-8") as log:
                status = subprocess.run(
                    command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False, timeout=seconds
                ).returncode
        except subprocess.TimeoutExpired:
            raise BackendError(f"{library} did not build {request.onnx.name} within {seconds:g} s") from None
        if status == 0 and answer.is_file():
            result = GraphResult.model_validate_json(answer.read_text(encoding="utf-8"))
            if result.used is not None:
                return result.used
            raise BackendError(result.error or f"{library} gave no plan of {request.onnx.name}")
    tail = " ".join(request.log.read_text(encoding="utf-8", errors="replace").split())[-300:]
    raise BackendError(f"{library} ended while it built {request.onnx.name}: {_ending(status)}; it said last: {tail}")


def _ending(status: int) -> str:
    if status == -signal.SIGKILL:
        return "the system killed it, usually because memory ran out; narrow it: --batch 1:4:8, --workspace 512M"
    if status < 0:
        return f"it crashed ({signal.Signals(-status).name}), a fault of the library; export with another --opset"
    return f"its process ended with status {status}"
