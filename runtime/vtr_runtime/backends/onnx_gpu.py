"""ONNX Runtime's providers for NVIDIA GPUs: CUDA, TensorRT, and TensorRT for RTX by its plug-in package."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout, suppress
from dataclasses import replace
from functools import partial
from importlib import import_module
from io import StringIO
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..bundle import Bundle
from ..engines.device import DeviceInfo, read_device
from ..engines.record import ENGINES
from ..engines.tensorrt_library import load_tensorrt
from ..errors import BackendError, UnavailableError
from ..manifest import GraphSpec
from .base import Arrays, BackendOptions, DeviceTensor, GraphBackend, PrecisionError, check_gpu
from .coverage import RECORD, Coverage, check_coverage, read_coverage
from .cuda import Cuda
from .device_io import check_views, fetch, make_results
from .dlpack import CUDA, view
from .environment import RTX_PLUGIN_MODULE
from .lane import Lane
from .onnx_runtime import import_onnxruntime, session_options
from .providers import (
    PROVIDERS,
    ProviderBackend,
    cache_folder,
    largest_axes,
    provider_buckets,
    provider_options,
    tf32_note,
)
from .shapes import Axes, Buckets, check_feed, concrete, run_in_buckets

T = TypeVar("T")
# How ONNX Runtime says that nodes of a graph lie on the CPU and are more than arithmetic of shapes: 1.15 and later.
CANNOT_CAPTURE = re.compile(r"cannot use the (CUDA )?graph (capture )?feature", re.IGNORECASE)
NO_CAPTURE = -1  # a run that neither captures nor replays


class OnnxGpuBackend(GraphBackend):
    """The bundle's graphs on one of PROVIDERS. `coverage` says by graph which provider runs how many nodes.

    All runs go through one thread: the CUDA provider keeps a context, and its captured graphs, a thread, and a graph
    must not be captured while another thread allocates. The GPU does one of them at a time as it is."""

    text_rows = 64

    def __init__(self, bundle: Bundle, name: ProviderBackend, options: BackendOptions) -> None:
        """UnavailableError where the provider or its GPU is not there, PrecisionError for bf16 before SM80,
        BackendError where the provider takes too little of a graph and `allow_fallback` is not set."""
        super().__init__(bundle.manifest)
        self.name: str = name
        self.device = (CUDA, options.device)
        self.runs_precision = bundle.manifest.graph_precision
        self.precision_note = tf32_note(name, bundle.manifest, os.environ)
        gpu = check_gpu(name, options.device, read_device(options.device))
        if self.runs_precision == "bf16" and int(gpu.sm) < 80:
            raise PrecisionError(f"{gpu.name} is SM{gpu.sm}, and bf16 begins with SM80; export the bundle in fp16")
        self._cuda = Cuda(options.device)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        opener = _Opener(bundle, name, options, gpu)
        self._graphs: dict[str, BoundGraph] = {}
        for graph, spec in self._specs.items():
            session, graph_option = opener.open(graph)
            buckets, place = provider_buckets(graph, bundle.manifest), ("cuda", options.device)
            make = partial(BoundGraph, session, spec, buckets, self._cuda, graph_option=graph_option, device=place)
            self._graphs[graph] = self._do(make)
        self.coverage: dict[str, Coverage | None] = opener.coverage
        covered = [f"{graph}: {found.summary}" for graph, found in self.coverage.items() if found]
        self.notes = (*covered, *opener.notes)

    def run_on_device(self, graph: str, feed: Mapping[str, DeviceTensor]) -> dict[str, DeviceTensor]:
        return self._do(partial(self._graphs[self._known(graph)].run_on_device, graph, feed, self.device))

    def fetch(self, tensor: DeviceTensor) -> NDArray[Any]:
        return self._do(partial(fetch, self._cuda, tensor, self.device))

    def _run(self, graph: str, feed: Arrays) -> dict[str, NDArray[np.float32]]:
        axes = check_feed(graph, self._specs[graph], feed)
        return self._do(partial(self._graphs[graph].run, feed, axes))

    def _do(self, work: Callable[[], T]) -> T:
        def on_gpu() -> T:
            with self._cuda.current():
                return work()

        return self._thread.submit(on_gpu).result()


class _Opener:
    """Opens sessions of a provider and counts what it takes of each graph."""

    def __init__(self, bundle: Bundle, name: ProviderBackend, options: BackendOptions, gpu: DeviceInfo) -> None:
        self._bundle, self._name, self._options = bundle, name, options
        self._provider = PROVIDERS[name]
        self._ort = import_onnxruntime("cpu" if name == "onnx-trt-rtx" else self._provider.extra)
        self._plugin = _rtx_devices(self._ort, options.device) if name == "onnx-trt-rtx" else None
        if self._plugin is None and self._provider.name not in self._ort.get_available_providers():
            raise UnavailableError(
                f"the installed onnxruntime has no {self._provider.name}; replace it: "
                "pip uninstall -y onnxruntime && pip install 'vtr-runtime[gpu]'"
            )
        self.notes: list[str] = []
        self._cache = cache_folder(options.engine_dir or bundle.folder / ENGINES, name, bundle.manifest, gpu)
        if name != "onnx-cuda":  # which builds nothing
            self._cache = self._make_folder(self._cache)
        self.coverage: dict[str, Coverage | None] = {}

    def open(self, graph: str) -> tuple[Any, str | None]:
        """A session, and the run option that names its captured graphs; None where nothing is captured.

        What it holds on other providers is refused unless that is allowed."""
        session, captured = self._session(graph, self._options), self._options.cuda_graphs
        if session is None:
            session, captured = self._session(graph, replace(self._options, cuda_graphs=False)), False
            self.notes.append(f"{graph}: run without a CUDA graph, because parts of it are computed on the CPU")
        if session.get_providers()[0] != self._provider.name:
            # Seen: with a library missing, ONNX Runtime logs a warning and opens the session on the CPU.
            raise UnavailableError(
                f"onnxruntime {self._ort.__version__} could not load {self._provider.name} and would run on "
                f"{session.get_providers()[0]}; install what it needs of CUDA, cuDNN and TensorRT: "
                "pip install 'onnxruntime-gpu[cuda,cudnn]'"
            )
        session.disable_fallback()
        self.coverage[graph] = read_coverage(session)
        if not self._options.allow_fallback:
            check_coverage(graph, self.coverage[graph], self._provider.name)
        return session, self._provider.graph_id if captured else None

    def _make_folder(self, folder: Path) -> Path:
        """For what the provider builds; where that cannot be written, one for this process."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            self.notes.append(
                f"{folder.parent} cannot be written: engines are built anew each time, or give --engine-dir"
            )
            return Path(tempfile.mkdtemp(prefix="vtr-"))
        return folder

    def _session(self, graph: str, options: BackendOptions) -> Any:
        """None where the provider cannot capture the graph as it was told to."""
        settings = session_options(self._ort)
        settings.add_session_config_entry(RECORD, "1")
        path = self._bundle.file(self._bundle.manifest.graphs.named()[graph].file)
        chosen = provider_options(self._name, graph, self._bundle.manifest, options, self._cache)
        try:
            if self._plugin is not None:
                settings.add_provider_for_devices(self._plugin, chosen)
                return self._ort.InferenceSession(str(path), settings, enable_fallback=0)
            if hasattr(self._ort, "preload_dlls"):  # CUDA's libraries as pip installs them
                with redirect_stdout(StringIO()):  # it prints what it does not find
                    self._ort.preload_dlls(directory="")
            if self._name == "onnx-tensorrt":
                with suppress(BackendError):  # pip's TensorRT lies where the loader does not look: its module loads it
                    load_tensorrt("trt")
            providers = [(self._provider.name, chosen)]
            return self._ort.InferenceSession(str(path), settings, providers=providers, enable_fallback=0)
        except Exception as error:
            if options.cuda_graphs and CANNOT_CAPTURE.search(str(error)):
                return None
            # "Please install TensorRT libraries ..." is how the provider says that they are not there.
            absent = "please install" in str(error).lower()
            raise (UnavailableError if absent else BackendError)(
                f"onnxruntime {self._ort.__version__} cannot load {path} on {self._provider.name}: "
                f"{' '.join(str(error).split())}"
            ) from error


def _rtx_devices(ort: Any, index: int) -> list[Any]:
    """The plug-in's GPU of this number."""
    if not hasattr(ort, "register_execution_provider_library"):
        raise UnavailableError(f"onnxruntime {ort.__version__} takes no plug-ins; install 1.24 or later")
    try:
        plugin = import_module(RTX_PLUGIN_MODULE)
    except ImportError as error:
        raise UnavailableError(
            f"backend onnx-trt-rtx needs the plug-in of TensorRT for RTX ({error}); install it: "
            "pip install 'vtr-runtime[onnx-trt-rtx]'"
        ) from error
    name = plugin.get_ep_name()
    try:
        ort.register_execution_provider_library(name, plugin.get_library_path())
    except Exception as error:
        if "already registered" not in str(error).lower():
            raise UnavailableError(f"the plug-in of TensorRT for RTX cannot be loaded: {error}") from error
    found = [device for device in ort.get_ep_devices() if device.ep_name == name]
    if index >= len(found):
        raise UnavailableError(
            f"the plug-in of TensorRT for RTX runs on {len(found)} GPUs here, and GPU {index} was asked for; "
            "it needs Ampere, Ada or Blackwell"
        )
    return [found[index]]


class BoundGraph:
    """A session whose inputs and outputs lie in buffers of ours: bound once a shape, and with `graph_option` captured
    once a shape. `device` is ONNX Runtime's: its type and number. Used by one thread."""

    def __init__(
        self,
        session: Any,
        spec: GraphSpec,
        buckets: Buckets,
        cuda: Cuda,
        *,
        graph_option: str | None,
        device: tuple[str, int],
    ) -> None:
        self._session, self._spec, self._buckets, self._cuda = session, spec, buckets, cuda
        self._graph_option, self._device = graph_option, device
        self._lane = Lane(cuda, spec, largest_axes(spec, buckets))
        self._bound: dict[tuple[tuple[str, int], ...], tuple[Any, Any]] = {}

    def run(self, feed: Arrays, axes: Axes) -> Arrays:
        return run_in_buckets(self._spec, feed, axes, self._buckets, self._run_part)

    def run_on_device(
        self, name: str, feed: Mapping[str, DeviceTensor], device: tuple[int, int]
    ) -> dict[str, DeviceTensor]:
        """On the tensors' own memory, in their own shape; nothing is captured."""
        views = {key: view(key, tensor, device, self._lane.stream) for key, tensor in feed.items()}
        axes = check_views(name, self._spec, views)
        self._cuda.synchronize(self._lane.stream)  # their owners' work; the session has a stream of its own
        results, addresses = make_results(self._cuda, self._spec, axes, device)
        addresses |= {key: found.address for key, found in views.items()}
        self._launch(self._bind(axes, addresses), self._options(NO_CAPTURE))
        return results

    def _run_part(self, feed: Arrays, axes: Axes, filled: Axes) -> Arrays:
        key = tuple(sorted(filled.items()))
        if key not in self._bound:
            self._bound[key] = self._bind(filled, self._lane.address), self._options(len(self._bound) + 1)
        self._lane.upload(feed, filled)
        self._cuda.synchronize(self._lane.stream)
        self._launch(*self._bound[key])
        return self._lane.download(axes, filled)

    def _bind(self, axes: Axes, addresses: Mapping[str, int]) -> Any:
        binding = self._session.io_binding()
        for tensors, bind in ((self._spec.inputs, binding.bind_input), (self._spec.outputs, binding.bind_output)):
            for tensor in tensors:
                shape = concrete(tensor.shape, axes)
                bind(tensor.name, *self._device, np.dtype(tensor.dtype), shape, addresses[tensor.name])
        return binding

    def _options(self, graph: int) -> Any:
        from onnxruntime import RunOptions

        options = RunOptions()
        if self._graph_option is not None:
            options.add_run_config_entry(self._graph_option, str(graph))
        return options

    def _launch(self, binding: Any, options: Any) -> None:
        try:
            self._session.run_with_iobinding(binding, options)
        except Exception as error:
            raise BackendError(f"onnxruntime failed while running a graph: {error}") from error
