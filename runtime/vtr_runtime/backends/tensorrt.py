"""The bundle's own engines, by the runtimes of TensorRT and of TensorRT for RTX."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..bundle import Bundle
from ..engines.device import DeviceInfo, read_device
from ..engines.record import ENGINES, EngineRecord, check_record, find_engines, misfit, rebuild_command
from ..engines.tensorrt_library import TensorRT, TensorRTTarget, is_error, last_error, load_tensorrt, make_logger
from ..errors import BackendError, UnavailableError
from .base import Arrays, BackendOptions, DeviceTensor, GraphBackend, check_gpu
from .cuda import Cuda
from .device_io import fetch
from .dlpack import CUDA
from .engine_graph import EngineGraph
from .profile_plan import ProfilePlan
from .runtime_cache import RuntimeCache


class TensorRTBackend(GraphBackend):
    """An engine that was built from exactly this bundle, for this GPU and library. Each call takes buffers and an
    execution context from a small pool, so threads share it."""

    text_rows = 64
    precision_note: str | None = None

    def __init__(self, bundle: Bundle, target: TensorRTTarget, options: BackendOptions) -> None:
        """UnavailableError where there is no GPU, no library or no engine that fits; BackendError for a damaged one."""
        super().__init__(bundle.manifest)
        self.name: str = target
        self.device = (CUDA, options.device)
        self.runs_precision = bundle.manifest.precision
        gpu = check_gpu(target, options.device, read_device(options.device))
        trt = load_tensorrt(target)
        folder, record = find_engine(bundle, trt, gpu, options.engine_dir or bundle.folder / ENGINES)
        self._cuda = Cuda(options.device)
        with self._cuda.current():
            self._opener = opener = _Opener(trt, folder, record, gpu)  # its runtime and logger serve the engines
            self._graphs = {
                graph: EngineGraph(
                    trt,
                    opener.deserialize(graph, bundle),
                    spec,
                    ProfilePlan.of(graph, spec, record.profiles[graph]),
                    self._cuda,
                    cuda_graphs=options.cuda_graphs,
                    cache=opener.cache(graph),
                    errors=opener.errors,
                )
                for graph, spec in self._specs.items()
            }
        weakref.finalize(self, _save, self._cuda, opener.caches)

    def run_on_device(self, graph: str, feed: Mapping[str, DeviceTensor]) -> dict[str, DeviceTensor]:
        with self._cuda.current():
            return self._graphs[self._known(graph)].run_on_device(feed)

    def fetch(self, tensor: DeviceTensor) -> NDArray[Any]:
        with self._cuda.current():
            return fetch(self._cuda, tensor, self.device)

    def _run(self, graph: str, feed: Arrays) -> dict[str, NDArray[np.float32]]:
        with self._cuda.current():
            return self._graphs[graph].run(feed)


def find_engine(bundle: Bundle, trt: TensorRT, gpu: DeviceInfo, engine_dir: Path) -> tuple[Path, EngineRecord]:
    """The first engine that fits, its files compared with their sha256."""
    manifest, again = bundle.manifest, rebuild_command(bundle.folder, trt.target)
    mine = [
        (folder, record)
        for folder, record in find_engines(engine_dir)
        if record.target == trt.target and record.precision == manifest.precision
    ]
    if not mine:
        raise UnavailableError(f"{engine_dir} holds no {trt.target} engine in {manifest.precision}; build it: {again}")
    problems = [misfit(record, manifest, gpu, trt.version) for _, record in mine]
    if "" not in problems:
        raise UnavailableError(f"engine {mine[0][1].id} {problems[0]}; build it here: {again}")
    folder, record = mine[problems.index("")]
    check_record(record, manifest, gpu, folder=folder, bundle=bundle.folder, library_version=trt.version)
    if record.settings.get("strip"):
        raise BackendError(
            f"engine {record.id} was built without its weights; put them in: "
            f"vtr-runtime build {bundle.folder} --target {trt.target} --refit {folder} --overwrite"
        )
    return folder, record


class _Opener:
    """Deserialises the plans of an engine."""

    def __init__(self, trt: TensorRT, folder: Path, record: EngineRecord, gpu: DeviceInfo) -> None:
        self._trt, self._folder, self._gpu = trt, folder, gpu
        self.errors: deque[str] = deque(maxlen=8)
        self.caches: list[RuntimeCache] = []
        self._logger = make_logger(trt.module, self._hear)
        self._runtime = trt.module.Runtime(self._logger)
        if record.version_compatible:  # such a plan brings a lean runtime of its own, which is code
            self._runtime.engine_host_code_allowed = True

    def deserialize(self, graph: str, bundle: Bundle) -> Any:
        path = self._folder / f"{graph}.plan"
        engine = self._runtime.deserialize_cuda_engine(path.read_bytes())
        if engine is None:
            again = rebuild_command(bundle.folder, self._trt.target)
            raise BackendError(
                f"{self._trt.name} {self._trt.version} cannot load {path}: {last_error(self.errors)}; "
                f"build it here: {again}"
            )
        return engine

    def cache(self, graph: str) -> RuntimeCache | None:
        """TensorRT compiles when it builds; TensorRT for RTX where it runs."""
        if self._trt.target == "trt":
            return None
        self.caches.append(RuntimeCache(self._folder / f"{graph}.sm{self._gpu.sm}.cache"))
        return self.caches[-1]

    def _hear(self, severity: Any, message: str) -> None:
        if is_error(severity):
            self.errors.append(message)


def _save(cuda: Cuda, caches: Sequence[RuntimeCache]) -> None:
    with cuda.current():
        for cache in caches:
            cache.save()
