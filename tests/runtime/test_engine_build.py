"""TensorRT engines, built for several GPUs without one by TensorRT for RTX's real parser and builder."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from vtr_runtime.bundle import Bundle, open_bundle
from vtr_runtime.engines import PrecisionUsed, find_engines, read_record, tensorrt_build
from vtr_runtime.engines.device import DeviceInfo
from vtr_runtime.engines.profiles import ProfileRequest, Range
from vtr_runtime.engines.recipe import write_recipe
from vtr_runtime.engines.record import EngineRecord, write_record
from vtr_runtime.engines.tensorrt_build import BuildOptions, build_tensorrt, check_options, run_request
from vtr_runtime.engines.tensorrt_graph import GraphRequest, attach_timing_cache, explain
from vtr_runtime.engines.tensorrt_library import BuilderLog, TensorRT, load_tensorrt
from vtr_runtime.engines.tensorrt_refit import refit_engine
from vtr_runtime.errors import BackendError, OutputExistsError, StorageError, UsageError

SMALL = BuildOptions(profiles=ProfileRequest(Range(1, 2, 4), Range(1, 4, 8), Range(1, 4, 8)))
ADA = DeviceInfo("RTX 4090", "89", "13.0", 24 << 30, 20 << 30, False)
TURING = DeviceInfo("T4", "75", "13.0", 15 << 30, 14 << 30, False)


@pytest.fixture(scope="module")
def rtx() -> TensorRT:
    return load_tensorrt("trt-rtx")


@pytest.fixture(scope="session")
def opened_bundle(small_bundle: Path) -> Bundle:
    return open_bundle(small_bundle)


@pytest.fixture(scope="session")
def engine(opened_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, EngineRecord, list[str]]:
    folder, said = tmp_path_factory.mktemp("engines"), list[str]()
    record = build_tensorrt(opened_bundle, "trt-rtx", SMALL, engine_dir=folder, say=said.append)
    return folder / record.id, record, said


def test_one_engine_serves_several_gpus(engine: tuple[Path, EngineRecord, list[str]], rtx: TensorRT) -> None:
    folder, record, said = engine
    assert folder.name == "trt-rtx-fp32-sm86-89-120"
    assert record == read_record(folder)
    assert record.capabilities == ("86", "89", "120")
    assert (record.library, record.library_version) == ("tensorrt-rtx", rtx.version)
    assert sorted(record.files) == ["build.log", "text.plan", "video.plan"]
    assert all((folder / name).stat().st_size == entry.size > 0 for name, entry in record.files.items())
    assert {name: len(profiles) for name, profiles in record.profiles.items()} == {"video": 1, "text": 2}
    for used in record.precision_used.values():
        assert (used.precision, used.source) == ("fp32", "parsed network")
        assert used.counts["fp32"] > 3
    assert "text: built for SM86, SM89, SM120" in said[-1]
    assert said[0].startswith("predicted memory: ")


def test_a_second_build_replaces_only_when_told(
    engine: tuple[Path, EngineRecord, list[str]], opened_bundle: Bundle
) -> None:
    folder, _, _ = engine
    with pytest.raises(OutputExistsError, match="exists already"):
        build_tensorrt(opened_bundle, "trt-rtx", SMALL, engine_dir=folder.parent)


def test_an_interrupted_build_leaves_nothing(
    opened_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = []

    def stop_at_the_second(request: GraphRequest, _: str) -> PrecisionUsed:
        if done:
            raise KeyboardInterrupt
        done.append(request.plan.write_bytes(b"a plan"))
        return PrecisionUsed(precision="fp32", source="parsed network")

    monkeypatch.setattr(tensorrt_build, "run_request", stop_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        build_tensorrt(opened_bundle, "trt-rtx", SMALL, engine_dir=tmp_path / "engines")
    assert done
    assert list((tmp_path / "engines").iterdir()) == []
    assert find_engines(tmp_path / "engines") == []


def test_a_folder_that_cannot_be_written_is_named(opened_bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="give another folder with --engine-dir"):
        build_tensorrt(opened_bundle, "trt-rtx", SMALL, engine_dir=tmp_path / "file" / "engines")


@pytest.fixture
def make_graph(tmp_path: Path) -> Callable[..., GraphRequest]:
    """A request for a graph of one matrix product and, if asked, attention, in a type; input and output are float."""

    def made(kind: int = TensorProto.FLOAT16, asked: str = "fp16", attention: str = "", **changes: Any) -> GraphRequest:
        values = np.random.default_rng(0).standard_normal(64 * 64).astype(np.float32) * 0.1
        weights = [helper.make_tensor(f"w{i}", kind, [64, 64], values.tolist()) for i in range(3)]
        nodes = [helper.make_node("Cast", ["x"], ["typed"], to=kind)]
        nodes += [helper.make_node("MatMul", ["typed", f"w{i}"], [f"p{i}"]) for i in range(3)]
        if attention:
            heads = {"q_num_heads": 2, "kv_num_heads": 2}
            nodes += [helper.make_node("Attention", attention.split(), ["y"], **heads)]
        else:
            nodes += [helper.make_node("Sum", ["p0", "p1", "p2"], ["y"])]
        nodes += [helper.make_node("Cast", ["y"], ["z"], to=TensorProto.FLOAT)]
        given, out = (
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", "tokens", 64]) for name in ("x", "z")
        )
        graph = helper.make_graph(nodes, "g", [given], [out], weights)
        path = tmp_path / "graph.onnx"
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10), path)
        shapes = {"x": ((1, 2, 64), (1, 16, 64), (4, 77, 64))}
        standard = {
            "target": "trt-rtx", "name": "graph", "onnx": path, "plan": tmp_path / "graph.plan",
            "log": tmp_path / "build.log", "profiles": (shapes,), "precision": asked,
            "capabilities": ("86", "89", "120"),
        }  # fmt: skip
        return GraphRequest.model_validate({**standard, **changes})

    return made


@pytest.mark.parametrize(("kind", "asked"), [(TensorProto.FLOAT16, "fp16"), (TensorProto.BFLOAT16, "bf16")])
def test_a_typed_graph_keeps_its_type(make_graph: Callable[..., GraphRequest], kind: int, asked: str) -> None:
    request = make_graph(kind, asked, attention="p0 p1 p2", workspace=64 << 20, level=2)
    used = run_request(request, "tensorrt-rtx")
    assert (used.precision, used.counts[asked]) == (asked, max(used.counts.values()))
    assert used.counts[asked] >= 3
    assert used.attention == "dedicated kernels"
    assert request.plan.stat().st_size > 1000


def test_fp16_that_is_not_in_the_graph_is_refused(make_graph: Callable[..., GraphRequest]) -> None:
    request = make_graph(TensorProto.FLOAT, "fp16")
    with pytest.raises(BackendError, match=r"no matrix product of graph\.onnx is in fp16 \(found: 3 in fp32\)"):
        run_request(request, "tensorrt-rtx")
    assert not request.plan.exists()


def test_attention_without_a_kernel_is_written_out_and_that_is_said(make_graph: Callable[..., GraphRequest]) -> None:
    """TensorRT for RTX has no kernel for attention in fp32 on these GPUs."""
    request = make_graph(TensorProto.FLOAT, "fp32", attention="p0 p1 p2")
    assert run_request(request, "tensorrt-rtx").attention == "partly written out"
    assert "dedicated kernel" in request.log.read_text()
    assert request.plan.stat().st_size > 1000


def test_a_builder_that_crashes_takes_only_its_child(make_graph: Callable[..., GraphRequest]) -> None:
    """Version 1.7 crashes on attention whose three inputs are one tensor."""
    request = make_graph(attention="p0 p0 p0")
    with pytest.raises(BackendError, match=r"tensorrt-rtx 1 ended while it built graph\.onnx: it crashed \(SIGSEGV\)"):
        run_request(request, "tensorrt-rtx 1")


def test_a_builder_that_the_system_kills_ran_out_of_memory(
    make_graph: Callable[..., GraphRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = subprocess.CompletedProcess([], -9)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: killed)
    with pytest.raises(BackendError, match="the system killed it, usually because memory ran out; narrow it: --batch"):
        run_request(make_graph(), "tensorrt-rtx")


def test_all_of_a_parsers_errors_are_one_sentence(make_graph: Callable[..., GraphRequest]) -> None:
    request = make_graph()
    model = onnx.load(request.onnx)
    model.graph.node[4].op_type = "NoSuchOperator"
    model.graph.node[5].op_type = "NorThisOne"
    onnx.save(model, request.onnx)
    with pytest.raises(BackendError, match=r"cannot read graph\.onnx: .*NoSuchOperator.*export it for this version"):
        run_request(request, "tensorrt-rtx")


def test_weights_beside_the_graph_are_found(make_graph: Callable[..., GraphRequest]) -> None:
    request = make_graph()
    model = onnx.load(request.onnx)
    arrays = [numpy_helper.to_array(tensor) for tensor in model.graph.initializer]
    del model.graph.initializer[:]
    model.graph.initializer.extend(numpy_helper.from_array(array, f"w{i}") for i, array in enumerate(arrays))
    onnx.save(model, request.onnx, save_as_external_data=True, location="graph.onnx.data", size_threshold=0)
    assert run_request(request, "tensorrt-rtx").counts == {"fp16": 3}
    (request.onnx.parent / "graph.onnx.data").unlink()
    with pytest.raises(BackendError, match=r"cannot read graph\.onnx"):
        run_request(request, "tensorrt-rtx")


def test_what_needs_a_gpu_says_so(make_graph: Callable[..., GraphRequest]) -> None:
    if tensorrt_build.read_device() is not None:
        pytest.skip("this machine has a GPU")
    request = make_graph(refit=True)
    with pytest.raises(BackendError, match="these settings need an NVIDIA GPU and its driver on this machine"):
        run_request(request, "tensorrt-rtx")


OPTIONS: list[tuple[BuildOptions, str]] = [
    (BuildOptions(timing_cache=Path("t.cache")), r"--timing-cache is not for target trt-rtx: .* times no kernels"),
    (BuildOptions(version_compatible=True), r"--version-compatible is not for target trt-rtx: .* no lean runtime"),
    (BuildOptions(hardware="ampere+"), r"--hardware-compatible is not .* has not the level ampere\+: .* with --sm"),
    (BuildOptions(capabilities=("70",)), r"--sm 70 is not built by tensorrt-rtx .*; choose from 75, 80, 86"),
    (BuildOptions(capabilities=("89", "75")), r"--sm 75 has no bf16, which begins with SM80"),
    (BuildOptions(level=6), r"--optimization-level 6 is not a level; give 0 to 5"),
]


@pytest.mark.parametrize(("options", "sentence"), OPTIONS)
def test_what_a_target_cannot_honour_is_refused(rtx: TensorRT, options: BuildOptions, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        check_options(options, rtx, "bf16")


def test_capabilities_are_for_the_rtx_library(rtx: TensorRT) -> None:
    with pytest.raises(UsageError, match=r"--sm is not for target trt: .* builds for the GPU that is there"):
        check_options(BuildOptions(capabilities=("89",)), TensorRT("trt", rtx.module, "11.4"), "fp16")


def test_target_trt_needs_its_gpu(
    opened_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rtx: TensorRT
) -> None:
    monkeypatch.setattr(tensorrt_build, "load_tensorrt", lambda _: TensorRT("trt", rtx.module, "11.4.1"))
    monkeypatch.setattr(tensorrt_build, "read_device", lambda: None)
    with pytest.raises(BackendError, match="no NVIDIA GPU with a driver was found; run this command on that machine"):
        build_tensorrt(opened_bundle, "trt", SMALL, engine_dir=tmp_path)
    in_bf16 = opened_bundle.manifest.model_copy(update={"precision": "bf16"})
    monkeypatch.setattr(tensorrt_build, "read_device", lambda: TURING)
    with pytest.raises(BackendError, match="T4 is SM75, and bf16 begins with SM80; export the bundle in fp16"):
        build_tensorrt(Bundle(opened_bundle.folder, in_bf16), "trt", SMALL, engine_dir=tmp_path)


def test_a_timing_cache_is_made_kept_and_read(rtx: TensorRT, tmp_path: Path) -> None:
    """The calls are TensorRT's; in TensorRT for RTX they exist, and time nothing."""
    log = BuilderLog(rtx, tmp_path / "log")
    config = rtx.module.Builder(log.logger).create_builder_config()
    path = tmp_path / "timing.cache"
    with pytest.warns(DeprecationWarning, match="no-ops in TensorRT-RTX"):
        cache = attach_timing_cache(config, path)
    with pytest.warns(DeprecationWarning, match="no-ops in TensorRT-RTX"):
        path.write_bytes(bytes(cache.serialize()))
    assert path.stat().st_size > 0
    with pytest.warns(DeprecationWarning, match="no-ops in TensorRT-RTX"):
        assert attach_timing_cache(config, path) is not None
    log.close()


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        ("Error Code 10: Could not find any implementation for node x", "memory ran out while it built"),
        ("Cuda Runtime (cudaError 35: CUDA driver version is insufficient)", "need an NVIDIA GPU and its driver"),
        ("Error Code 3: strange", "Error Code 3: strange; the whole log is in build.log"),
    ],
)
def test_a_builders_errors_are_explained(error: str, sentence: str) -> None:
    assert sentence in explain([error])


def test_an_engine_with_fixed_weights_is_not_refitted(
    engine: tuple[Path, EngineRecord, list[str]], opened_bundle: Bundle, tmp_path: Path
) -> None:
    folder, record, _ = engine
    with pytest.raises(UsageError, match="was built without --refittable, so its weights are fixed"):
        refit_engine(folder, opened_bundle, engine_dir=tmp_path)
    copy = tmp_path / record.id
    copy.mkdir()
    refittable = record.model_copy(update={"settings": {**record.settings, "refit": True}, "capabilities": ("1",)})
    write_record(copy, refittable)
    with pytest.raises(BackendError, match="SM1"):
        refit_engine(copy, opened_bundle, engine_dir=tmp_path / "new")


def test_the_recipe_holds_a_line_for_each_graph(opened_bundle: Bundle, tmp_path: Path) -> None:
    options = BuildOptions(profiles=SMALL.profiles, workspace=512 << 20, version_compatible=True, hardware="ampere+")
    folder = write_recipe(opened_bundle, "trt", options, engine_dir=tmp_path, reason="tensorrt is not installed")
    assert folder.name == "trt-recipe"
    assert find_engines(tmp_path) == []
    readme = (folder / "README.md").read_text()
    assert "No engine was built here: tensorrt is not installed." in readme
    text = (
        "trtexec --onnx=text.onnx --saveEngine=text.plan --stronglyTyped --noTF32 --timingCacheFile=timing.cache "
        "--memPoolSize=workspace:512 --versionCompatible --hardwareCompatibilityLevel=ampere+ "
        "--profile=0 --minShapes=input_ids:1x2 --optShapes=input_ids:1x16 --maxShapes=input_ids:1x77 "
        "--profile=1 --minShapes=input_ids:1x2 --optShapes=input_ids:4x32 --maxShapes=input_ids:8x77 "
        "--profilingVerbosity=detailed --skipInference"
    )
    assert text in readme
    assert "--maxShapes=frames:4x12x32x32x3,frame_mask:4x12" in readme
    build = (
        "vtr-runtime build BUNDLE --target trt --batch 1:2:4 --text-batch 1:4:8 --candidates 1:4:8 "
        "--workspace 512M --version-compatible --hardware-compatible ampere+"
    )
    assert build in readme


def test_a_build_loads_neither_torch_nor_onnx() -> None:
    code = (
        "import sys; import vtr_runtime.engines.tensorrt_build, vtr_runtime.engines.tensorrt_refit; "
        "import vtr_runtime.engines.recipe; "
        "print(sorted({'torch', 'onnx', 'tensorrt_rtx_bindings'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
