"""One graph of a TensorRT engine, run by many threads in a few lanes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from ..engines.tensorrt_library import TensorRT, last_error
from ..errors import BackendError, UsageError
from ..manifest import GraphSpec
from .base import Arrays, DeviceTensor
from .cuda import Cuda
from .device_io import check_views, make_results
from .dlpack import CUDA, view
from .lane import Lane
from .profile_plan import ProfilePlan
from .runtime_cache import RuntimeCache
from .shapes import Axes, check_feed, concrete, run_in_buckets

# One call's copies run beside another's kernels; more would take memory and no time.
LANES = 2
ALIGNMENT = 256  # of a tensor's address, by TensorRT's documentation
TYPES = {"uint8": "UINT8", "bool": "BOOL", "int32": "INT32", "float32": "FLOAT"}


class EngineGraph:
    """`captured` says whether shapes are replayed as CUDA graphs of ours; TensorRT for RTX captures by itself."""

    def __init__(
        self,
        trt: TensorRT,
        engine: Any,
        spec: GraphSpec,
        plan: ProfilePlan,
        cuda: Cuda,
        *,
        cuda_graphs: bool,
        cache: RuntimeCache | None,
        errors: Sequence[str] = (),
    ) -> None:
        """BackendError for an engine whose tensors are not the graph's."""
        self._trt, self._engine, self._cuda, self._errors = trt, engine, cuda, errors
        self._spec, self._plan = spec, plan
        self._check_tensors()
        self.captured = cuda_graphs and trt.target == "trt"
        self._how = self._configure(cuda_graphs=cuda_graphs, cache=cache)
        self._making = threading.Lock()
        self._free = threading.Semaphore(LANES)
        self._idle: list[_EngineLane] = []

    def run(self, feed: Arrays) -> Arrays:
        axes = check_feed(self._plan.graph, self._spec, feed)
        with self._lane() as lane:
            return run_in_buckets(self._spec, feed, axes, self._plan.buckets, lane.run)

    def run_on_device(self, feed: Mapping[str, DeviceTensor]) -> dict[str, DeviceTensor]:
        """On the tensors' own memory, in their own shape."""
        device = (CUDA, self._cuda.index)
        with self._lane() as lane:
            views = {key: view(key, tensor, device, lane.lane.stream) for key, tensor in feed.items()}
            for key, found in views.items():
                if found.address % ALIGNMENT:
                    raise UsageError(f"{key} does not begin at a multiple of {ALIGNMENT} bytes; give a copy of it")
            axes = check_views(self._plan.graph, self._spec, views)
            results, addresses = make_results(self._cuda, self._spec, axes, device)
            lane.run_at({**addresses, **{key: found.address for key, found in views.items()}}, axes)
            return results

    def create_context(self) -> Any:
        """A context without memory of its own."""
        with self._making:
            context = self._engine.create_execution_context(self._how)
        if context is None:
            raise self.failure("make an execution context")
        return context

    def _configure(self, *, cuda_graphs: bool, cache: RuntimeCache | None) -> Any:
        """How contexts are made: of TensorRT for RTX by a configuration, which lives as long as they do."""
        module = self._trt.module
        strategy = module.ExecutionContextAllocationStrategy.USER_MANAGED
        if self._trt.target == "trt":
            return strategy
        config = self._engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(strategy)
        capture = module.CudaGraphStrategy
        config.cuda_graph_strategy = capture.WHOLE_GRAPH_CAPTURE if cuda_graphs else capture.DISABLED
        if cache is not None:
            cache.attach(config)
        return config

    @property
    def workspace(self) -> int:
        """Bytes that a context of any profile takes."""
        size = getattr(self._engine, "device_memory_size_v2", None)
        return int(self._engine.device_memory_size if size is None else size)

    def failure(self, what: str) -> BackendError:
        return BackendError(
            f"{self._trt.name} {self._trt.version} could not {what} of {self._plan.graph}: {last_error(self._errors)}"
        )

    @contextmanager
    def _lane(self) -> Iterator[_EngineLane]:
        """One that nobody uses; made when it is needed, never more than LANES."""
        with self._free:
            try:
                lane = self._idle.pop()
            except IndexError:
                lane = _EngineLane(self, self._spec, self._plan, self._cuda)
            try:
                yield lane
            finally:
                self._idle.append(lane)

    def _check_tensors(self) -> None:
        kinds = self._trt.module.DataType
        for tensor in (*self._spec.inputs, *self._spec.outputs):
            names = [self._engine.get_tensor_name(place) for place in range(self._engine.num_io_tensors)]
            wanted = getattr(kinds, TYPES[tensor.dtype])
            if tensor.name not in names or self._engine.get_tensor_dtype(tensor.name) != wanted:
                raise BackendError(f"the engine's {self._plan.graph} has no tensor {tensor.name} of {tensor.dtype}")


class _EngineLane:
    """Buffers, scratch memory and the contexts that share it. Used by one thread at a time."""

    def __init__(self, graph: EngineGraph, spec: GraphSpec, plan: ProfilePlan, cuda: Cuda) -> None:
        self._graph, self._spec, self._plan, self._cuda = graph, spec, plan, cuda
        self.lane = Lane(cuda, spec, plan.largest, scratch=graph.workspace)
        # A captured graph works in its context's memory: that context keeps its shape for good, and is kept.
        self._fixed: dict[tuple[tuple[str, int], ...], tuple[Any, Callable[[], None]]] = {}
        self._contexts: dict[int, Any] = {}

    def run(self, feed: Arrays, axes: Axes, filled: Axes) -> Arrays:
        self.lane.upload(feed, filled)
        if not self._graph.captured:
            self._enqueue(self._bound(self._context(filled), self.lane.address, filled))
            return self.lane.download(axes, filled)
        key = tuple(sorted(filled.items()))
        if key in self._fixed:
            _, launch = self._fixed[key]
            launch()
            return self.lane.download(axes, filled)
        context = self._bound(self._new_context(self._plan.choose(filled)), self.lane.address, filled)
        self._enqueue(context)  # what is done once for a shape must not be captured
        outputs = self.lane.download(axes, filled)
        self._fixed[key] = context, self._capture(context)
        return outputs

    def run_at(self, addresses: Mapping[str, int], axes: Axes) -> None:
        """On memory of others, and wait."""
        self._enqueue(self._bound(self._context(axes), addresses, axes))
        self._cuda.synchronize(self.lane.stream)

    def _capture(self, context: Any) -> Callable[[], None]:
        enqueue = partial(self._enqueue, context)
        try:
            graph = self._cuda.capture(self.lane.stream, enqueue)
        except BackendError:  # an engine that reads back what it computes cannot be captured: it runs as it is
            return enqueue
        self.lane.keep(graph)
        return partial(self._cuda.launch, graph, self.lane.stream)

    def _context(self, axes: Axes) -> Any:
        """Of the profile for these sizes; its shapes and addresses change from call to call."""
        profile = self._plan.choose(axes)
        if profile not in self._contexts:
            self._contexts[profile] = self._new_context(profile)
        return self._contexts[profile]

    def _new_context(self, profile: int) -> Any:
        context = self._graph.create_context()
        if self.lane.scratch:
            context.set_device_memory(self.lane.scratch, self._graph.workspace)
        if not context.set_optimization_profile_async(profile, self.lane.stream):
            raise self._graph.failure(f"take profile {profile}")
        self._cuda.synchronize(self.lane.stream)
        return context

    def _bound(self, context: Any, addresses: Mapping[str, int], axes: Axes) -> Any:
        for tensor in self._spec.inputs:
            if not context.set_input_shape(tensor.name, concrete(tensor.shape, axes)):
                raise self._graph.failure(f"take the shape {concrete(tensor.shape, axes)} for {tensor.name}")
        for tensor in (*self._spec.inputs, *self._spec.outputs):
            if not context.set_tensor_address(tensor.name, addresses[tensor.name]):
                raise self._graph.failure(f"take the memory for {tensor.name}")
        return context

    def _enqueue(self, context: Any) -> None:
        if not context.execute_async_v3(self.lane.stream):
            raise self._graph.failure("run a batch")
