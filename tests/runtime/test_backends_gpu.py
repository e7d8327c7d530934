"""The GPU's backends. Here, without one: their buffers, binding, profiles and captured graphs over a GPU whose memory
is the host's, where ONNX Runtime's CPU computes; with one (marker gpu): every backend against onnx-cpu."""

from __future__ import annotations

import ctypes
import gc
import math
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray

from vtr_runtime import load
from vtr_runtime.backends import BackendOptions, engine_graph, open_backend
from vtr_runtime.backends import onnx_gpu as onnx_gpu_module
from vtr_runtime.backends import tensorrt as tensorrt_module
from vtr_runtime.backends.base import DeviceBackend
from vtr_runtime.backends.choose import BACKENDS
from vtr_runtime.backends.cuda import Cuda
from vtr_runtime.backends.dlpack import CPU, CUDA, Result
from vtr_runtime.backends.engine_graph import EngineGraph
from vtr_runtime.backends.onnx_gpu import BoundGraph, OnnxGpuBackend
from vtr_runtime.backends.onnx_runtime import OnnxRuntimeBackend
from vtr_runtime.backends.profile_plan import ProfilePlan
from vtr_runtime.backends.providers import provider_buckets
from vtr_runtime.backends.runtime_cache import RuntimeCache
from vtr_runtime.backends.shapes import check_feed, concrete
from vtr_runtime.backends.tensorrt import TensorRTBackend
from vtr_runtime.bundle import Bundle, open_bundle
from vtr_runtime.engines.device import DeviceInfo, read_device
from vtr_runtime.engines.profiles import ProfileRequest, Range, graph_profiles, input_shapes
from vtr_runtime.engines.record import EngineRecord, read_record, write_record
from vtr_runtime.engines.tensorrt_build import BuildOptions, build_tensorrt
from vtr_runtime.engines.tensorrt_library import TensorRT, load_tensorrt
from vtr_runtime.errors import BackendError, UnavailableError, UsageError
from vtr_runtime.manifest import GraphSpec, TensorSpec

ADA = DeviceInfo("RTX 4090", "89", "13.0", 24 << 30, 20 << 30, False)
Feed = dict[str, NDArray[Any]]


class FakeCuda:
    """A GPU of the host's memory. What is put on a stream is done when somebody waits for it, and not before; memory
    that was not allocated, or is too small, is never touched."""

    index = 0

    def __init__(self, *_: Any) -> None:
        self._blocks: dict[int, tuple[int, Any]] = {}
        self._streams: dict[int, list[Callable[[], None]]] = {}
        self._graphs: dict[int, list[Callable[[], None]]] = {}
        self.capturing: set[int] = set()
        self.captures = self.launches = 0
        self.capturable = True

    @contextmanager
    def current(self) -> Iterator[None]:
        yield

    def allocate(self, size: int) -> int:
        memory = (ctypes.c_uint8 * (size + 512))()
        address = -(-ctypes.addressof(memory) // 256) * 256
        np.ctypeslib.as_array(memory)[:] = 0xAB  # what was there before
        self._blocks[address] = size, memory
        return address

    def free(self, address: int) -> None:
        del self._blocks[address]

    def pinned(self, size: int) -> NDArray[np.uint8]:
        return self.at(self.allocate(size), size)

    def free_pinned(self, memory: NDArray[np.uint8]) -> None:
        self.free(memory.ctypes.data)

    def at(self, address: int, size: int) -> NDArray[np.uint8]:
        start = max(known for known in self._blocks if known <= address)
        room = self._blocks[start][0]
        assert address + size <= start + room, "beyond what was allocated"
        return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address)).view()

    def put(self, stream: int, work: Callable[[], None]) -> None:
        self._streams[stream].append(work)

    def to_device(self, address: int, source: int, size: int, stream: int) -> None:
        self.put(stream, lambda: self.at(address, size).__setitem__(slice(None), self.at(source, size)))

    def to_host(self, target: int, address: int, size: int, stream: int) -> None:
        place = (ctypes.c_uint8 * size).from_address(target)
        self.put(stream, lambda: np.ctypeslib.as_array(place).__setitem__(slice(None), self.at(address, size)))

    def create_stream(self) -> int:
        self._streams[handle := len(self._streams) + 77] = []
        return handle

    def destroy_stream(self, stream: int) -> None:
        assert self._streams[stream] == []

    def synchronize(self, stream: int) -> None:
        assert stream not in self.capturing, "a stream that is captured cannot be waited for"
        work, self._streams[stream] = self._streams[stream], []
        for step in work:
            step()

    def capture(self, stream: int, work: Callable[[], None]) -> int:
        if not self.capturable:
            raise BackendError("the NVIDIA driver answered CUDA_ERROR_STREAM_CAPTURE_INVALIDATED")
        assert self._streams[stream] == [], "work from before would be captured"
        self.capturing.add(stream)
        work()
        self.capturing.remove(stream)
        self.captures += 1
        self._graphs[self.captures], self._streams[stream] = self._streams[stream], []
        return self.captures

    def launch(self, graph: int, stream: int) -> None:
        self.launches += 1
        self._streams[stream] += self._graphs[graph]

    def destroy_graph(self, graph: int) -> None:
        del self._graphs[graph]

    @property
    def held(self) -> int:
        return sum(size for size, _ in self._blocks.values())


@pytest.fixture(scope="module")
def bundle(small_bundle: Path) -> Bundle:
    return open_bundle(small_bundle)


@pytest.fixture(scope="module")
def reference(bundle: Bundle) -> OnnxRuntimeBackend:
    return OnnxRuntimeBackend(bundle, threads=1)


def draw(spec: GraphSpec, rows: int, tokens: int, seed: int = 0) -> Feed:
    generator = np.random.default_rng(seed)
    if "frames" in {given.name for given in spec.inputs}:
        shape = concrete(spec.inputs[0].shape, {"batch": rows})
        mask = np.arange(shape[1]) < generator.integers(1, shape[1] + 1, (rows, 1))
        return {"frames": generator.integers(0, 256, shape, dtype=np.uint8), "frame_mask": mask}
    ids = generator.integers(1, 49000, (rows, tokens)).astype(np.int32)
    ids[:, 0], ids[:, -1] = 49406, 49407
    return {"input_ids": ids}


SIZES = [(1, 5), (3, 77), (1, 16), (9, 17), (3, 77), (1, 7), (4, 30)]


def agree(run: Callable[[Feed], Feed], reference: OnnxRuntimeBackend, graph: str, spec: GraphSpec) -> None:
    """Shape after shape, larger and smaller, with other numbers each time: nothing of a call before is seen."""
    for seed, (rows, tokens) in enumerate(SIZES):
        feed = draw(spec, rows, tokens, seed)
        got, want = run(feed), reference._run(graph, feed)
        assert list(got) == list(want)
        for name, array in want.items():
            assert got[name].shape == array.shape
            assert np.abs(got[name] - array).max() <= 2e-6 * max(1.0, np.abs(array).max()), (name, rows, tokens)


def run_bound(bound: BoundGraph, graph: str, spec: GraphSpec, feed: Feed) -> Feed:
    return bound.run(feed, check_feed(graph, spec, feed))


@pytest.mark.parametrize("graph", ["text", "video"])
def test_bound_graphs_give_what_the_session_gives(bundle: Bundle, reference: OnnxRuntimeBackend, graph: str) -> None:
    """ONNX Runtime itself on bound memory, of the CPU instead of the GPU."""
    spec, cuda = bundle.manifest.graphs.named()[graph], FakeCuda()
    bound = BoundGraph(
        reference._sessions[graph], spec, provider_buckets(graph, bundle.manifest), cuda,  # type: ignore[arg-type]
        graph_option=None, device=("cpu", 0),
    )  # fmt: skip
    held = cuda.held
    agree(partial(run_bound, bound, graph, spec), reference, graph, spec)
    assert cuda.held == held  # buffers do not grow with the shapes
    assert len(bound._bound) <= len({(rows, tokens) for rows, tokens in SIZES})
    del bound
    gc.collect()
    assert cuda.held == 0


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A graph with an output a token, as the text tower has with a second stage: word_embeddings [batch, tokens, 2]."""
    import onnxruntime
    from onnx import TensorProto, helper

    table = helper.make_tensor("table", TensorProto.FLOAT, [49408, 2], np.arange(49408 * 2, dtype=np.float32))
    given = helper.make_tensor_value_info("input_ids", TensorProto.INT32, ["batch", "tokens"])
    out = helper.make_tensor_value_info("word_embeddings", TensorProto.FLOAT, ["batch", "tokens", 2])
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "input_ids"], ["word_embeddings"])], "g", [given], [out], [table]
    )
    path = tmp_path_factory.mktemp("words") / "words.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    spec = GraphSpec(
        file="words.onnx",
        inputs=(TensorSpec(name="input_ids", dtype="int32", shape=("batch", "tokens")),),
        outputs=(TensorSpec(name="word_embeddings", dtype="float32", shape=("batch", "tokens", 2)),),
    )
    run = {"text": lambda feed: dict(zip(["word_embeddings"], session.run(None, feed), strict=True))}
    return SimpleNamespace(
        _specs={"text": spec}, _sessions={"text": session}, _run=lambda graph, feed: run[graph](feed)
    )


def test_an_output_a_token_is_cut_as_it_lies(bundle: Bundle, words: Any) -> None:
    spec = words._specs["text"]
    bound = BoundGraph(
        words._sessions["text"], spec, provider_buckets("text", bundle.manifest), FakeCuda(),  # type: ignore[arg-type]
        graph_option=None, device=("cpu", 0),
    )  # fmt: skip
    agree(partial(run_bound, bound, "text", spec), words, "text", spec)
    opened, _, _ = open_graph(bundle, words, "text", spec=spec)
    agree(opened.run, words, "text", spec)


def test_each_shape_has_its_own_captured_graph(bundle: Bundle, reference: OnnxRuntimeBackend) -> None:
    """The number that ONNX Runtime keeps a graph by: one a bucket, and none for tensors of others."""
    seen: list[str] = []

    class Session:
        io_binding = reference._sessions["text"].io_binding

        def run_with_iobinding(self, binding: Any, options: Any) -> None:
            seen.append(options.get_run_config_entry("gpu_graph_id"))
            reference._sessions["text"].run_with_iobinding(binding)

    spec = bundle.manifest.graphs.text
    bound = BoundGraph(
        Session(), spec, provider_buckets("text", bundle.manifest), FakeCuda(),  # type: ignore[arg-type]
        graph_option="gpu_graph_id", device=("cpu", 0),
    )  # fmt: skip
    for rows, tokens in [(1, 5), (1, 9), (3, 20), (4, 32), (1, 16)]:
        bound.run(draw(spec, rows, tokens), {"batch": rows, "tokens": tokens})
    assert seen == ["1", "1", "2", "2", "1"]


def test_tensors_that_stay_where_they_are(bundle: Bundle, reference: OnnxRuntimeBackend) -> None:
    spec, cuda = bundle.manifest.graphs.text, FakeCuda()
    bound = BoundGraph(
        reference._sessions["text"], spec, provider_buckets("text", bundle.manifest), cuda,  # type: ignore[arg-type]
        graph_option=None, device=("cpu", 0),
    )  # fmt: skip
    ids = draw(spec, 3, 21)["input_ids"]
    given = OnCpu(torch.from_numpy(ids))
    out = bound.run_on_device("text", {"input_ids": given}, (CPU, 0))["embedding"]
    assert np.abs(torch.from_dlpack(out).numpy() - reference.text(ids)["embedding"]).max() < 2e-6
    held = cuda.held
    del out
    gc.collect()
    assert cuda.held < held
    with pytest.raises(BackendError, match="input input_ids has the shape"):
        bound.run_on_device("text", {"input_ids": OnCpu(torch.zeros(3, dtype=torch.int32))}, (CPU, 0))


class OnCpu:
    """A tensor of the CPU that is told a stream, as those of a GPU are."""

    def __init__(self, tensor: torch.Tensor, device: tuple[int, int] = (CPU, 0)) -> None:
        self._tensor, self._device = tensor, device

    def __dlpack__(self, *, stream: int | None = None) -> Any:
        assert stream is not None
        return self._tensor.__dlpack__()

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._device


def test_the_cpu_takes_and_gives_tensors_without_a_copy(small_bundle: Path) -> None:
    model = load(small_bundle, "onnx-cpu", threads=1)
    assert isinstance(model.backend, DeviceBackend)
    ids = model.tokenize(["a dog runs", "two cats"])
    out = torch.from_dlpack(model.encode_ids_on_device(torch.from_numpy(ids)))
    assert np.abs(out.numpy() - model.encode_ids(ids)).max() < 1e-6
    assert np.array_equal(model.backend.fetch(out), out.numpy())
    clips = draw(model.manifest.graphs.video, 2, 0)
    tensors = [torch.from_numpy(array) for array in clips.values()]
    found = torch.from_dlpack(model.encode_pixels_on_device(*tensors)).numpy()
    assert np.abs(found - model.encode_pixels(*clips.values())).max() < 1e-6
    assert model.backend.fetch(tensors[0]).ctypes.data == tensors[0].data_ptr()
    with pytest.raises(UsageError, match="onnx-cpu takes tensors with __dlpack__ that lie on the CPU"):
        model.encode_ids_on_device([1, 2])  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="no graph 'rerank' is run of this bundle; choose from: video, text"):
        model.backend.run_on_device("rerank", {})
    with pytest.raises(UsageError, match="backend openvino takes arrays of numpy alone"):
        load(small_bundle, "openvino", threads=1).encode_ids_on_device(torch.from_numpy(ids))


def test_ids_are_looked_at_wherever_they_lie(small_bundle: Path) -> None:
    from vtr_runtime.errors import TextError

    model = load(small_bundle, "onnx-cpu", threads=1)
    ids = torch.from_numpy(model.tokenize(["a dog"]))
    ids[0, 1] = model.manifest.text.vocab_size
    with pytest.raises(TextError):
        model.encode_ids_on_device(ids)


class FakeEngine:
    """TensorRT's engine and its contexts, as far as they are used: it refuses what TensorRT refuses, and computes with
    ONNX Runtime at the addresses and in the shapes that held when it was put on the stream."""

    device_memory_size_v2 = 1000

    def __init__(self, cuda: FakeCuda, backend: OnnxRuntimeBackend, graph: str, plan: ProfilePlan, kinds: Any) -> None:
        self.cuda, self.backend, self.graph, self.plan, self.kinds = cuda, backend, graph, plan, kinds
        self.spec = backend._specs[graph]
        self.tensors = {tensor.name: tensor for tensor in (*self.spec.inputs, *self.spec.outputs)}
        self.num_io_tensors, self.contexts, self.configs = len(self.tensors), 0, list[Any]()

    def get_tensor_name(self, place: int) -> str:
        return list(self.tensors)[place]

    def get_tensor_dtype(self, name: str) -> Any:
        return getattr(self.kinds, engine_graph.TYPES[self.tensors[name].dtype])

    def create_runtime_config(self) -> Any:
        made = SimpleNamespace(
            set_execution_context_allocation_strategy=lambda _: None, set_runtime_cache=lambda _: True
        )
        made.create_runtime_cache = lambda: FakeKernels()
        self.configs.append(made)
        return made

    def create_execution_context(self, _: Any) -> FakeContext:
        self.contexts += 1
        return FakeContext(self)


class FakeKernels:
    def __init__(self) -> None:
        self.blob = b"compiled"

    def serialize(self) -> bytes:
        return self.blob

    def deserialize(self, blob: bytes) -> bool:
        self.blob = blob
        return True


class FakeContext:
    def __init__(self, engine: FakeEngine) -> None:
        self.engine, self.profile, self.memory = engine, -1, 0
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}

    def set_device_memory(self, address: int, size: int) -> None:
        assert len(self.engine.cuda.at(address, size)) == size == self.engine.device_memory_size_v2
        self.memory = address

    def set_optimization_profile_async(self, profile: int, _: int) -> bool:
        self.profile = profile
        return profile < len(self.engine.plan.profiles)

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        ranges, wanted = self.engine.plan.profiles[self.profile], self.engine.tensors[name].shape
        self.shapes[name] = shape
        return all(
            ranges[axis][0] <= size <= ranges[axis][1] if isinstance(axis, str) else size == axis
            for axis, size in zip(wanted, shape, strict=True)
        )

    def set_tensor_address(self, name: str, address: int) -> bool:
        assert name in self.shapes or name in {out.name for out in self.engine.spec.outputs}
        self.addresses[name] = address
        return address % 256 == 0

    def execute_async_v3(self, stream: int) -> bool:
        assert self.memory
        assert set(self.addresses) == set(self.engine.tensors)
        shapes, addresses, engine = dict(self.shapes), dict(self.addresses), self.engine
        cuda, context = engine.cuda, weakref.ref(self)

        def work() -> None:
            assert context() is not None, "the context is gone, and its memory with it"
            feed = {
                name: cuda.at(addresses[name], math.prod(shape) * np.dtype(engine.tensors[name].dtype).itemsize)
                .view(engine.tensors[name].dtype)
                .reshape(shape)
                for name, shape in shapes.items()
            }
            for name, array in engine.backend._run(engine.graph, feed).items():
                cuda.at(addresses[name], array.nbytes)[:] = np.ascontiguousarray(array).view(np.uint8).reshape(-1)

        cuda.put(stream, work)
        return True


REQUEST = ProfileRequest(Range(1, 2, 4), Range(1, 4, 8), Range(1, 4, 8))


def open_graph(
    bundle: Bundle, reference: OnnxRuntimeBackend, graph: str, *, target: str = "trt", **options: Any
) -> tuple[EngineGraph, FakeEngine, FakeCuda]:
    module = load_tensorrt("trt-rtx").module  # for the names of its types and strategies
    cuda = FakeCuda()
    spec = options.pop("spec", bundle.manifest.graphs.named()[graph])
    shapes = [input_shapes(spec, profile) for profile in graph_profiles(bundle.manifest, REQUEST)[graph]]
    plan = ProfilePlan.of(graph, spec, shapes)
    engine = FakeEngine(cuda, reference, graph, plan, module.DataType)
    library = TensorRT(target, module, "11.4")  # type: ignore[arg-type]
    chosen = {"cuda_graphs": True, "cache": None, **options}
    return EngineGraph(library, engine, spec, plan, cuda, **chosen), engine, cuda  # type: ignore[arg-type]


@pytest.mark.parametrize("graph", ["text", "video"])
@pytest.mark.parametrize("cuda_graphs", [True, False])
def test_engines_give_what_the_graph_gives(
    bundle: Bundle, reference: OnnxRuntimeBackend, graph: str, cuda_graphs: bool
) -> None:
    opened, engine, cuda = open_graph(bundle, reference, graph, cuda_graphs=cuda_graphs)
    agree(opened.run, reference, graph, bundle.manifest.graphs.named()[graph])
    held = cuda.held
    agree(opened.run, reference, graph, bundle.manifest.graphs.named()[graph])
    assert cuda.held == held
    if cuda_graphs:
        assert cuda.captures == engine.contexts  # a shape, a context, a graph
        assert cuda.launches > cuda.captures
    else:
        assert (cuda.captures, engine.contexts) == (0, len(engine.plan.profiles))  # a context a profile
    del opened, engine
    gc.collect()
    assert cuda.held == 0


def test_an_engine_that_cannot_be_captured_runs(bundle: Bundle, reference: OnnxRuntimeBackend) -> None:
    opened, _, cuda = open_graph(bundle, reference, "text")
    cuda.capturable = False
    agree(opened.run, reference, "text", bundle.manifest.graphs.text)
    assert cuda.launches == 0


def test_threads_share_an_engine(bundle: Bundle, reference: OnnxRuntimeBackend) -> None:
    opened, engine, _ = open_graph(bundle, reference, "text")
    spec = bundle.manifest.graphs.text
    feeds = [draw(spec, 1 + seed % 5, 3 + 7 * seed % 60, seed) for seed in range(8)]
    want = [reference._run("text", feed)["embedding"] for feed in feeds]

    def ask(which: int) -> NDArray[np.float32]:
        return opened.run(feeds[which % 8])["embedding"]

    with ThreadPoolExecutor(6) as pool:
        for which, got in enumerate(pool.map(ask, range(120))):
            assert np.abs(got - want[which % 8]).max() < 2e-6
    assert 1 <= len(opened._idle) <= engine_graph.LANES
    assert engine.contexts <= engine_graph.LANES * 24


def test_a_call_waits_for_a_lane(bundle: Bundle, reference: OnnxRuntimeBackend) -> None:
    opened, _, _ = open_graph(bundle, reference, "text")
    with opened._lane(), opened._lane():
        waiting = threading.Thread(target=opened.run, args=(draw(bundle.manifest.graphs.text, 1, 5),))
        waiting.start()
        waiting.join(0.1)
        assert waiting.is_alive()
    waiting.join(10)
    assert not waiting.is_alive()


def test_tensors_on_the_gpu_are_run_where_they_lie(bundle: Bundle, reference: OnnxRuntimeBackend) -> None:
    opened, _, cuda = open_graph(bundle, reference, "text")
    ids = draw(bundle.manifest.graphs.text, 3, 21)["input_ids"]
    address = cuda.allocate(ids.nbytes)
    cuda.at(address, ids.nbytes)[:] = ids.view(np.uint8).reshape(-1)
    given = Result(address, ids.shape, "int32", (CUDA, 0), lambda: None)
    out = opened.run_on_device({"input_ids": given})["embedding"]
    assert out.__dlpack_device__() == (CUDA, 0)
    assert isinstance(out, Result)
    found = cuda.at(out._address, 3 * 64 * 4).view(np.float32).reshape(3, 64)
    assert np.abs(found - reference.text(ids)["embedding"]).max() < 2e-6
    shifted = Result(address + 4, (1, 5), "int32", (CUDA, 0), lambda: None)
    with pytest.raises(UsageError, match="input_ids does not begin at a multiple of 256 bytes; give a copy"):
        opened.run_on_device({"input_ids": shifted})
    many = Result(address, (9, 2), "int32", (CUDA, 0), lambda: None)
    with pytest.raises(BackendError, match=r"text: the engine takes .* and batch 9, tokens 2 was asked for"):
        opened.run_on_device({"input_ids": many})


def test_an_engine_of_other_tensors_is_refused(bundle: Bundle, reference: OnnxRuntimeBackend) -> None:
    opened, engine, cuda = open_graph(bundle, reference, "text")
    engine.tensors.pop("embedding")
    engine.num_io_tensors -= 1
    with pytest.raises(BackendError, match="the engine's text has no tensor embedding of float32"):
        EngineGraph(
            opened._trt, engine, bundle.manifest.graphs.text, engine.plan, cuda,  # type: ignore[arg-type]
            cuda_graphs=True, cache=None,
        )  # fmt: skip


def test_what_an_engine_refuses_is_a_sentence(
    bundle: Bundle, reference: OnnxRuntimeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, _, _ = open_graph(bundle, reference, "text", errors=["no kernel\nimage"])
    monkeypatch.setattr(FakeContext, "execute_async_v3", lambda *_: False)
    with pytest.raises(BackendError, match=r"tensorrt 11\.4 could not run a batch of text: no kernel image"):
        opened.run(draw(bundle.manifest.graphs.text, 1, 5))


def test_rtx_captures_by_itself_and_keeps_what_it_compiled(
    bundle: Bundle, reference: OnnxRuntimeBackend, tmp_path: Path
) -> None:
    path = tmp_path / "text.sm89.cache"
    cache = RuntimeCache(path)
    opened, engine, cuda = open_graph(bundle, reference, "text", target="trt-rtx", cache=cache)
    agree(opened.run, reference, "text", bundle.manifest.graphs.text)
    strategies = opened._trt.module.CudaGraphStrategy
    assert [config.cuda_graph_strategy for config in engine.configs] == [strategies.WHOLE_GRAPH_CAPTURE]
    assert cuda.captures == 0
    cache.save()
    assert path.read_bytes() == b"compiled"
    path.write_bytes(b"compiled before")
    again = RuntimeCache(path)
    open_graph(bundle, reference, "text", target="trt-rtx", cache=again)
    assert again._cache.blob == b"compiled before"
    nowhere = RuntimeCache(tmp_path / "no such folder" / "x")
    open_graph(bundle, reference, "text", target="trt-rtx", cache=nowhere)
    nowhere.save()  # a bundle that cannot be written is no failure
    plain, engine, _ = open_graph(bundle, reference, "text", target="trt-rtx", cuda_graphs=False)
    agree(plain.run, reference, "text", bundle.manifest.graphs.text)
    assert [config.cuda_graph_strategy for config in engine.configs] == [strategies.DISABLED]


@pytest.fixture(scope="module")
def built(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, EngineRecord]:
    """A real engine of TensorRT for RTX, built without a GPU."""
    folder = tmp_path_factory.mktemp("engines")
    options = BuildOptions(profiles=REQUEST, capabilities=("89",))
    return folder, build_tensorrt(bundle, "trt-rtx", options, engine_dir=folder)


@pytest.fixture
def rtx(built: tuple[Path, EngineRecord], reference: OnnxRuntimeBackend, monkeypatch: pytest.MonkeyPatch) -> TensorRT:
    """The real library's names and version, with a runtime that needs no GPU; the GPU is said to be there."""
    real = load_tensorrt("trt-rtx")
    folder, record = built
    plans = {(folder / record.id / f"{name}.plan").read_bytes(): name for name in record.profiles}

    def deserialize(plan: bytes) -> FakeEngine | None:
        graph = plans.get(plan)
        if graph is None:
            return None
        shapes = ProfilePlan.of(graph, reference._specs[graph], record.profiles[graph])
        return FakeEngine(cuda, reference, graph, shapes, real.module.DataType)

    cuda = FakeCuda()
    names = {
        name: getattr(real.module, name)
        for name in ("DataType", "ExecutionContextAllocationStrategy", "CudaGraphStrategy", "ILogger")
    }
    module = SimpleNamespace(Runtime=lambda _: SimpleNamespace(deserialize_cuda_engine=deserialize), **names)
    library = TensorRT("trt-rtx", module, real.version)
    monkeypatch.setattr(tensorrt_module, "read_device", lambda _: ADA)
    monkeypatch.setattr(tensorrt_module, "load_tensorrt", lambda _: library)
    monkeypatch.setattr(tensorrt_module, "Cuda", lambda _: cuda)
    return library


@pytest.mark.usefixtures("rtx")
def test_a_bundles_engine_is_run(
    bundle: Bundle, built: tuple[Path, EngineRecord], reference: OnnxRuntimeBackend, tmp_path: Path
) -> None:
    backend = TensorRTBackend(bundle, "trt-rtx", BackendOptions(engine_dir=built[0]))
    assert (backend.name, backend.runs_precision, backend.precision_note) == ("trt-rtx", "fp32", None)
    assert isinstance(backend, DeviceBackend)
    for graph in ("text", "video"):
        agree(partial(backend._run, graph), reference, graph, backend._specs[graph])
    with pytest.raises(UnavailableError, match=r"holds no trt-rtx engine in fp32; build it: vtr-runtime build"):
        TensorRTBackend(bundle, "trt-rtx", BackendOptions(engine_dir=tmp_path))


@pytest.mark.usefixtures("rtx")
@pytest.mark.parametrize("fault", ["version", "gpu", "damaged", "stripped", "no plan"])
def test_an_engine_that_does_not_fit_is_refused(
    bundle: Bundle, built: tuple[Path, EngineRecord], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    import shutil

    folder = Path(shutil.copytree(built[0], tmp_path / "engines"))
    engine = folder / built[1].id
    changes: dict[str, Any] = {}
    kind, words = BackendError, ""
    if fault == "version":
        changes, kind, words = {"library_version": "1.2"}, UnavailableError, "was built with tensorrt-rtx 1.2, and 1.7"
    elif fault == "gpu":
        changes, kind, words = (
            {"capabilities": ("120",)},
            UnavailableError,
            "was built for SM120, and this GPU is RTX 4090",
        )
    elif fault == "damaged":
        (engine / "text.plan").write_bytes(b"half of it")
        words = r"is damaged: text\.plan is not the file"
    elif fault == "stripped":
        changes, words = {"settings": {"strip": True}}, "was built without its weights; put them in: .*--refit"
    else:
        monkeypatch.setattr(tensorrt_module, "check_record", lambda *_, **__: None)
        (engine / "text.plan").write_bytes(b"not a plan")
        words = r"tensorrt-rtx .* cannot load .*text\.plan: the library says nothing; build it here: vtr-runtime"
    write_record(engine, read_record(engine).model_copy(update=changes))
    with pytest.raises(kind, match=words):
        TensorRTBackend(bundle, "trt-rtx", BackendOptions(engine_dir=folder))


def test_a_provider_that_is_not_loaded_is_no_provider(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Of a session that onnxruntime opened on the CPU in silence, and of a package that lacks the provider."""
    monkeypatch.setattr(onnx_gpu_module, "read_device", lambda _: ADA)
    monkeypatch.setattr(onnx_gpu_module, "Cuda", FakeCuda)
    options = BackendOptions(engine_dir=tmp_path)
    with pytest.raises(
        UnavailableError, match="the installed onnxruntime has no CUDAExecutionProvider; replace it: pip"
    ):
        open_backend(bundle, "onnx-cuda", options)
    import onnxruntime

    both = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: both)
    with (
        pytest.warns(UserWarning, match="Specified provider"),
        pytest.raises(
            UnavailableError, match="could not load CUDAExecutionProvider and would run on CPUExecutionProvider"
        ),
    ):
        open_backend(bundle, "onnx-cuda", options)
    with pytest.raises(UnavailableError, match=r"needs the plug-in of TensorRT for RTX .*vtr-runtime\[onnx-trt-rtx\]"):
        open_backend(bundle, "onnx-trt-rtx", options)


def test_a_graph_that_cannot_be_captured_runs_without(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """ONNX Runtime's own sentence; what is not on the provider is counted, and said."""
    import onnxruntime

    told: list[tuple[str, str]] = []

    def session(path: str, _: Any, *, providers: Any, enable_fallback: int) -> Any:
        [(name, options)] = providers
        assert (name, enable_fallback) == ("CUDAExecutionProvider", 0)
        graph, capture = Path(path).stem, options["enable_cuda_graph"]
        told.append((graph, capture))
        if (graph, capture) == ("text", "1"):
            raise RuntimeError(
                "This session cannot use the graph capture feature as requested by the user as all compute"
            )
        nodes = [SimpleNamespace(op_type=kind) for kind in ["MatMul"] * 9]
        parts = [SimpleNamespace(ep_name=name, get_nodes=lambda: nodes)]
        if graph == "text":
            parts += [
                SimpleNamespace(ep_name="CPUExecutionProvider", get_nodes=lambda: [SimpleNamespace(op_type="ArgMax")])
            ]
        return SimpleNamespace(
            get_providers=lambda: [name],
            disable_fallback=lambda: None,
            get_provider_graph_assignment_info=lambda: parts,
        )

    monkeypatch.setattr(onnx_gpu_module, "read_device", lambda _: ADA)
    monkeypatch.setattr(onnx_gpu_module, "Cuda", FakeCuda)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    backend, said = open_backend(bundle, "onnx-cuda", BackendOptions(engine_dir=tmp_path))
    assert told == [("video", "1"), ("text", "1"), ("text", "0")]
    assert isinstance(backend, OnnxGpuBackend)
    assert {name: graph._graph_option for name, graph in backend._graphs.items()} == {
        "video": "gpu_graph_id",
        "text": None,
    }
    assert said == (
        "onnx-cuda (asked for); video: CUDAExecutionProvider 9 of 9 nodes; text: CUDAExecutionProvider 9 of 10 nodes, "
        "CPUExecutionProvider 1 of 10 nodes; "
        "text: run without a CUDA graph, because parts of it are computed on the CPU"
    )


USED = {
    "Runtime": {"deserialize_cuda_engine", "engine_host_code_allowed"},
    "ICudaEngine": {"create_execution_context", "create_runtime_config", "device_memory_size_v2", "get_tensor_dtype",
                    "get_tensor_name", "num_io_tensors"},
    "IExecutionContext": {"execute_async_v3", "set_device_memory", "set_input_shape", "set_optimization_profile_async",
                          "set_tensor_address"},
    "IRuntimeConfig": {"set_execution_context_allocation_strategy"},
    "ExecutionContextAllocationStrategy": {"USER_MANAGED"},
    "DataType": set(engine_graph.TYPES.values()),
    "ILogger": {"log"},
}  # fmt: skip
ONLY_RTX = {
    "IRuntimeConfig": {"create_runtime_cache", "cuda_graph_strategy", "set_runtime_cache"},
    "IRuntimeCache": {"deserialize", "serialize"},
    "CudaGraphStrategy": {"DISABLED", "WHOLE_GRAPH_CAPTURE"},
}


@pytest.mark.parametrize("library", ["tensorrt_lean", "tensorrt_rtx"])
def test_the_names_that_are_used_are_the_libraries_own(library: str) -> None:
    module = load_tensorrt("trt-rtx").module if library == "tensorrt_rtx" else pytest.importorskip(library)
    for names in (USED, *([ONLY_RTX] if library == "tensorrt_rtx" else [])):
        for kind, used in names.items():
            assert used <= set(dir(getattr(module, kind))), kind


@pytest.mark.gpu
@pytest.mark.skipif(read_device() is None, reason="no NVIDIA GPU")
@pytest.mark.parametrize("name", [name for name in BACKENDS if name not in ("onnx-cpu", "openvino")])
def test_on_a_gpu_each_backend_gives_what_the_cpu_gives(
    bundle: Bundle, reference: OnnxRuntimeBackend, name: str, tmp_path: Path
) -> None:
    """Skipped, with the reason, where the library is not installed."""
    if name in ("trt", "trt-rtx"):
        try:
            build_tensorrt(bundle, name, BuildOptions(profiles=REQUEST), engine_dir=tmp_path)  # type: ignore[arg-type]
        except UnavailableError as error:
            pytest.skip(str(error))
    try:
        backend, _ = open_backend(bundle, name, BackendOptions(engine_dir=tmp_path))
    except UnavailableError as error:
        pytest.skip(str(error))
    limit = 1e-4 if backend.precision_note is None else 2e-2  # TF32
    for graph, spec in bundle.manifest.graphs.named().items():
        for _ in range(3):  # the first is a warm-up, the second captures, the third replays
            for seed, (rows, tokens) in enumerate(SIZES):
                feed = draw(spec, rows, tokens, seed)
                got, want = backend._run(graph, feed), reference._run(graph, feed)  # type: ignore[attr-defined]
                assert np.abs(got["embedding"] - want["embedding"]).max() < limit
    assert isinstance(backend, DeviceBackend)
    if name.startswith("onnx"):
        assert all(coverage.share("CPUExecutionProvider") < 0.2 for coverage in backend.coverage.values())  # type: ignore[attr-defined]
    ids = draw(bundle.manifest.graphs.text, 3, 21)["input_ids"]
    out = backend.run_on_device("text", {"input_ids": torch.from_numpy(ids).cuda()})["embedding"]
    assert torch.from_dlpack(out).is_cuda
    assert np.abs(backend.fetch(out) - reference.text(ids)["embedding"]).max() < limit


@pytest.mark.gpu
@pytest.mark.skipif(read_device() is None, reason="no NVIDIA GPU")
def test_on_a_gpu_the_driver_copies() -> None:
    cuda = Cuda()
    with cuda.current():
        stream, address, host = cuda.create_stream(), cuda.allocate(1000), cuda.pinned(1000)
        host[:] = np.arange(1000) % 251
        cuda.to_device(address, host.ctypes.data, 1000, stream)
        out = np.zeros(1000, np.uint8)
        cuda.to_host(out.ctypes.data, address, 1000, stream)
        cuda.synchronize(stream)
    assert np.array_equal(out, host)
