"""OpenVINO: the precision is set and read back, an engine of another bundle or version is refused, threads agree."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from vtr_runtime import load, openvino
from vtr_runtime.backends import BackendOptions, PrecisionError, open_backend
from vtr_runtime.backends.openvino import OpenVinoBackend
from vtr_runtime.bundle import Bundle, open_bundle
from vtr_runtime.engines.openvino_build import build_openvino
from vtr_runtime.engines.record import ENGINE_JSON, ENGINES, read_record
from vtr_runtime.errors import BackendError, OutputExistsError, UsageError
from vtr_runtime.manifest import Graphs, GraphSpec, TensorSpec
from vtr_runtime.openvino import (
    compile_graph,
    cpu_has_bf16,
    import_openvino,
    operators,
    products_by_precision,
    shared_core,
)

IDS = np.array([[49406, 320, 1929, 49407], [49406, 49407, 0, 0]], np.int32)


needs_bf16 = pytest.mark.skipif(not cpu_has_bf16(), reason="this CPU has no bf16")


@pytest.fixture(scope="module")
def bundle(small_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The small bundle with a second stage of one product, and its IR."""
    folder = Path(shutil.copytree(small_bundle, tmp_path_factory.mktemp("openvino") / "bundle"))
    opened = with_rerank(open_bundle(folder))
    build_openvino(opened, engine_dir=folder / ENGINES)
    return opened


def with_rerank(bundle: Bundle) -> Bundle:
    """scores = embedding . frame_embeddings summed over frames, by a MatMul that bf16 would round."""
    shapes = {"embedding": [64], "frame_embeddings": ["candidates", 12, 64], "scores": ["candidates"]}
    values = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()}
    nodes = [
        helper.make_node("MatMul", ["frame_embeddings", "embedding"], ["products"]),
        helper.make_node("ReduceSum", ["products", "last"], ["scores"], keepdims=0),
    ]
    last = numpy_helper.from_array(np.array([1], np.int64), "last")
    graph = helper.make_graph(
        nodes, "rerank", [values["embedding"], values["frame_embeddings"]], [values["scores"]], [last]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, bundle.folder / "rerank.onnx")
    given = [TensorSpec(name=name, dtype="float32", shape=tuple(shape)) for name, shape in shapes.items()]
    spec = GraphSpec(file="rerank.onnx", inputs=tuple(given[:2]), outputs=(given[2],))
    manifest = bundle.manifest
    graphs = Graphs(**{**manifest.graphs.named(), "rerank": spec})
    files = {**manifest.files, "rerank.onnx": manifest.files["video.onnx"]}
    return replace(bundle, manifest=manifest.model_copy(update={"graphs": graphs, "files": files}))


def as_precision(bundle: Bundle, precision: str, graph_precision: str = "fp32") -> Bundle:
    update = {"precision": precision, "graph_precision": graph_precision}
    return replace(bundle, manifest=bundle.manifest.model_copy(update=update))


def test_it_gives_what_onnx_runtime_gives(bundle: Bundle, good_clips: list[Path]) -> None:
    ours, other = OpenVinoBackend(bundle, threads=1), load(bundle.folder, "onnx-cpu").backend
    assert (ours.name, ours.runs_precision, ours.precision_note) == ("openvino", "fp32", None)
    want, got = other.text(IDS), ours.text(IDS)
    assert list(want) == list(got)
    for name, array in want.items():
        assert np.abs(array - got[name]).max() <= 1e-5 * max(1.0, np.abs(array).max()), name
    pixels, mask, _ = load(bundle.folder, "onnx-cpu").read_frames(good_clips[0])
    frames = (pixels[None], mask[None])
    assert np.abs(other.video(*frames)["embedding"] - ours.video(*frames)["embedding"]).max() < 1e-5


def test_an_answer_stays_when_the_next_is_asked_for(bundle: Bundle) -> None:
    backend = OpenVinoBackend(bundle, threads=1)
    first = backend.text(IDS)["embedding"]
    kept = first.copy()
    backend.text(IDS[::-1].copy())
    assert np.array_equal(first, kept)


def test_threads_agree(bundle: Bundle) -> None:
    backend = OpenVinoBackend(bundle, threads=1)
    rng = np.random.default_rng(0)
    given = [np.concatenate([IDS[:1], rng.integers(1, 49000, (1, 4)).astype(np.int32)]) for _ in range(2)]
    for ids in given:
        ids[1, 0], ids[1, -1] = 49406, 49407
    want = [backend.text(ids)["embedding"] for ids in given]
    assert np.abs(want[0] - want[1]).max() > 1e-3
    got: list[list[NDArray[np.float32]]] = [[], []]
    start = threading.Barrier(2)

    def ask(which: int) -> None:
        start.wait()
        for _ in range(40):
            got[which].append(backend.text(given[which])["embedding"])

    threads = [threading.Thread(target=ask, args=(which,)) for which in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for which in (0, 1):
        assert len(got[which]) == 40
        assert all(np.array_equal(answer, want[which]) for answer in got[which])


@pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=needs_bf16)])
def test_the_hint_is_what_runs(bundle: Bundle, precision: Any) -> None:
    compiled = compile_graph(bundle.file("video.onnx"), precision, threads=1)
    assert compiled.get_property("INFERENCE_PRECISION_HINT").to_string() == {"fp32": "f32", "bf16": "bf16"}[precision]
    assert compiled.get_property("INFERENCE_NUM_THREADS") == 1
    counts = products_by_precision(compiled)
    assert max(counts, key=lambda kind: counts[kind]) == precision
    assert sum(operators(compiled).values()) > 10


@needs_bf16
def test_without_a_hint_openvino_would_choose_bf16(bundle: Bundle) -> None:
    """Why the hint is always set; should this ever fail, the sentence in the documentation is out of date."""
    compiled = shared_core().compile_model(str(bundle.file("video.onnx")), "CPU")
    assert compiled.get_property("INFERENCE_PRECISION_HINT").to_string() == "bf16"


SIGNAL_AFTER_TWO_MODELS = """
import os, signal, sys
from pathlib import Path
from vtr_runtime.openvino import compile_graph

signal.signal(signal.SIGINT, lambda *_: print("heard", flush=True))
first = compile_graph(Path(sys.argv[1]), "fp32", threads=1)
second = compile_graph(Path(sys.argv[1]), "fp32", threads=1)
del first
del second
os.kill(os.getpid(), signal.SIGINT)
"""


def test_a_signal_is_heard_after_two_models_are_gone(bundle: Bundle) -> None:
    """Destroyed in that order, two of OpenVINO's Cores leave a signal stack that is freed: the process would die."""
    command = [sys.executable, "-c", SIGNAL_AFTER_TWO_MODELS, str(bundle.file("video.onnx"))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (0, "heard\n")


class Compiled:
    """Says that it runs in another precision than it was asked for."""

    def __init__(self, real: Any) -> None:
        self.real = real

    def get_property(self, name: str) -> Any:
        assert name == "INFERENCE_PRECISION_HINT"
        return import_openvino().Type.f16

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


def test_another_precision_than_asked_for_is_an_error(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    real = import_openvino().Core.compile_model
    asked: list[dict[str, Any]] = []

    def compile_model(self: Any, model: Any, device: str, settings: dict[str, Any]) -> Compiled:
        asked.append(settings)
        return Compiled(real(self, model, device, settings))

    monkeypatch.setattr(import_openvino().Core, "compile_model", compile_model)
    with pytest.raises(BackendError, match=r"asked to run text\.onnx in f32 and would run it in f16"):
        compile_graph(bundle.file("text.onnx"), "fp32")
    assert asked[0]["INFERENCE_PRECISION_HINT"] == "f32"


def test_precisions_that_this_cpu_or_plug_in_has_not(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BackendError, match="is not used for fp16; export the bundle in fp32 or bf16"):
        compile_graph(bundle.file("text.onnx"), "fp16")
    monkeypatch.setattr(import_openvino().Core, "get_property", lambda *_: ["FP32"])
    with pytest.raises(BackendError, match=r"this CPU has no bf16 .*would emulate it; use fp32 or int8"):
        compile_graph(bundle.file("text.onnx"), "bf16")
    assert openvino._hint("int8", has_bf16=False) == "f32"
    assert openvino._hint("int8", has_bf16=True) == "bf16"


@needs_bf16
def test_the_second_stage_runs_in_fp32_beside_towers_in_bf16(bundle: Bundle, tmp_path: Path) -> None:
    lowered = as_precision(replace(bundle, folder=copied(bundle, tmp_path)), "bf16")
    record = build_openvino(lowered, engine_dir=lowered.folder / ENGINES)
    used = {name: found.precision for name, found in record.precision_used.items()}
    assert record.id == "openvino-bf16"
    assert record.settings["hints"] == {"video": "bf16", "text": "bf16", "rerank": "f32"}
    assert (used["text"], used["rerank"]) == ("bf16", "fp32")
    backend = OpenVinoBackend(lowered, threads=1)
    assert backend.runs_precision == "bf16"
    hints = {
        name: found.get_property("INFERENCE_PRECISION_HINT").to_string() for name, found in backend._compiled.items()
    }
    assert hints == {"video": "bf16", "text": "bf16", "rerank": "f32"}
    rng = np.random.default_rng(0)
    feed = {"embedding": rng.normal(size=64), "frame_embeddings": rng.normal(size=(3, 12, 64))}
    feed = {name: array.astype(np.float32) for name, array in feed.items()}
    want = (feed["frame_embeddings"] @ feed["embedding"]).sum(axis=1)
    assert np.abs(backend.rerank(feed) - want).max() < 1e-4
    rounded = np.abs(backend.text(IDS)["embedding"] - OpenVinoBackend(bundle, threads=1).text(IDS)["embedding"]).max()
    assert 1e-5 < rounded < 0.1


def copied(bundle: Bundle, folder: Path) -> Path:
    return Path(shutil.copytree(bundle.folder, folder / "bundle"))


def test_a_bundle_without_a_second_stage_says_so(small_bundle: Path) -> None:
    with pytest.raises(UsageError, match="no second stage; export it with --rerank"):
        OpenVinoBackend(open_bundle(small_bundle), threads=1).rerank({})


@pytest.mark.parametrize("graph_precision", ["fp16", "bf16"])
def test_typed_graphs_are_refused(bundle: Bundle, graph_precision: str) -> None:
    typed = as_precision(bundle, graph_precision, graph_precision)
    with pytest.raises(PrecisionError, match=f"graphs are {graph_precision}, .* vtr-export --target openvino"):
        OpenVinoBackend(typed)


@needs_bf16
def test_auto_takes_it_where_the_precision_is_a_hint(bundle: Bundle) -> None:
    hinted = as_precision(bundle, "bf16")
    backend, why = open_backend(hinted, options=BackendOptions(threads=1))
    assert backend.name == "openvino"
    assert why.startswith("openvino (auto: bf16 is a hint in this bundle, which OpenVINO alone takes")
    backend, why = open_backend(bundle, options=BackendOptions(threads=1))
    assert backend.name == "openvino"
    assert why.startswith("openvino (auto: the bundle holds the engine openvino-fp32")
    with pytest.raises(
        UsageError, match=r"there is no backend 'cuda'; choose from: auto, onnx-cpu, onnx-cuda, .*, openvino$"
    ):
        open_backend(bundle, "cuda")


def test_the_record_says_what_was_built_and_ran(bundle: Bundle) -> None:
    folder = bundle.folder / ENGINES / "openvino-fp32"
    record = read_record(folder)
    assert (record.target, record.precision, record.library) == ("openvino", "fp32", "OpenVINO")
    assert record.library_version == import_openvino().__version__
    names = {f"{graph}.{suffix}" for graph in ("video", "text", "rerank") for suffix in ("xml", "bin")}
    assert set(record.files) == names
    assert {name: used.precision for name, used in record.precision_used.items()} == dict.fromkeys(
        ("video", "text", "rerank"), "fp32"
    )
    with pytest.raises(OutputExistsError, match="exists already"):
        build_openvino(bundle, engine_dir=bundle.folder / ENGINES)


def spoil(folder: Path, **changes: Any) -> None:
    path = folder / ENGINE_JSON
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize("fault", ["core", "missing", "truncated", "newer", "platform"])
def test_an_engine_that_does_not_fit_is_refused_with_the_rebuild_command(
    bundle: Bundle, tmp_path: Path, fault: str
) -> None:
    opened = replace(bundle, folder=copied(bundle, tmp_path))
    engine = opened.folder / ENGINES / "openvino-fp32"
    words = "was built from other graphs or weights than this bundle's"
    if fault == "core":
        spoil(engine, core="0" * 64)
    elif fault == "missing":
        (engine / "text.xml").unlink()
        words = r"lacks its file text\.xml"
    elif fault == "truncated":
        weights = engine / "text.bin"
        weights.write_bytes(weights.read_bytes()[:-100])
        words = r"is damaged: text\.bin is not the file that was built"
    elif fault == "newer":
        spoil(engine, library_version="9999.1")
        words = r"was built with OpenVINO 9999\.1"
    else:
        spoil(engine, platform="linux-riscv64")
        words = "was built for linux-riscv64"
    again = rf"vtr-runtime build {opened.folder} --target openvino --overwrite"
    with pytest.raises(BackendError, match=rf"engine openvino-fp32 {words}.*; build it here: {again}$"):
        OpenVinoBackend(opened, threads=1)


def test_an_unfinished_engine_is_passed_over(bundle: Bundle, tmp_path: Path) -> None:
    """Without its record it is no engine: the graphs themselves are compiled."""
    opened = replace(bundle, folder=copied(bundle, tmp_path))
    engine = opened.folder / ENGINES / "openvino-fp32"
    (engine / ENGINE_JSON).unlink()
    (engine / "text.xml").write_text("half of it")
    assert np.isfinite(OpenVinoBackend(opened, threads=1).text(IDS)["embedding"]).all()


def test_an_ir_that_is_no_ir_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "text.xml").write_text("<net")
    with pytest.raises(BackendError, match=r"OpenVINO .* cannot compile .*text\.xml"):
        compile_graph(tmp_path / "text.xml", "fp32")


def test_what_openvino_would_run_without_a_word_is_refused(bundle: Bundle) -> None:
    backend = OpenVinoBackend(bundle, threads=1)
    frames, mask = np.zeros((1, 12, 32, 32, 3), np.uint8), np.ones((1, 12), bool)
    assert backend.video(frames, mask)["embedding"].shape == (1, 64)
    with pytest.raises(BackendError, match=r"text: input input_ids has the shape \(8,\); the graph takes"):
        backend.text(IDS.reshape(-1))
    with pytest.raises(BackendError, match=r"video: input frames has the shape \(1, 12, 16, 16, 3\)"):
        backend.video(frames[:, :, ::2, ::2], mask)
    with pytest.raises(BackendError, match=r"text: input input_ids is int64; the graph takes .*int32"):
        backend.text(IDS.astype(np.int64))  # type: ignore[arg-type]
    with pytest.raises(BackendError, match="rerank: input frame_embeddings is missing"):
        backend.rerank({"embedding": np.zeros(64, np.float32)})


def test_a_failure_while_running_is_one_sentence(bundle: Bundle) -> None:
    backend = OpenVinoBackend(bundle, threads=1)
    with pytest.raises(BackendError, match="text: the graph has no input another"):
        backend._run("text", {"input_ids": IDS, "another": IDS})

    class Broken:
        def infer(self, _: Any) -> None:
            raise RuntimeError("out of memory")

    vars(backend._requests)["text"] = Broken()
    with pytest.raises(BackendError, match="OpenVINO failed while running text: out of memory"):
        backend.text(IDS)
