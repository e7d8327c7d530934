"""The model repository: every configuration by Triton's own schema, and the files beside it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from google.protobuf import text_format
from onnx import TensorProto, helper, numpy_helper
from tritonclient.grpc import model_config_pb2 as schema

from vtr_export.triton import repository, write_repository
from vtr_export.triton.pbtxt import entries, to_pbtxt
from vtr_runtime.bundle import Bundle, open_bundle
from vtr_runtime.errors import BundleError, ConfigError, OutputExistsError
from vtr_runtime.manifest import GraphSpec, TensorSpec
from vtr_runtime.model import Model
from vtr_runtime.text import validate_ids

ONNX_TYPES = {
    TensorProto.UINT8: schema.TYPE_UINT8,
    TensorProto.BOOL: schema.TYPE_BOOL,
    TensorProto.INT32: schema.TYPE_INT32,
    TensorProto.FLOAT: schema.TYPE_FP32,
}
NUMPY_TYPES = {
    schema.TYPE_UINT8: np.uint8,
    schema.TYPE_BOOL: np.bool_,
    schema.TYPE_INT32: np.int32,
    schema.TYPE_FP32: np.float32,
    schema.TYPE_STRING: np.object_,
}


@pytest.fixture(scope="module")
def models(small_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository beside a copy of the bundle, where the exporter puts it."""
    bundle = Path(shutil.copytree(small_bundle, tmp_path_factory.mktemp("triton") / "bundle"))
    write_repository(bundle, bundle / "engines" / "triton", video_batch=(1, 4, 8), text_batch=(1, 8, 32))
    return bundle / "engines" / "triton"


def config_of(folder: Path) -> Any:
    return text_format.Parse((folder / "config.pbtxt").read_text(encoding="utf-8"), schema.ModelConfig())


def feed_types(tensors: Any) -> dict[str, tuple[int, list[int]]]:
    return {tensor.name: (tensor.data_type, list(tensor.dims)) for tensor in tensors}


# The configurations


def test_every_configuration_is_triton_s(models: Path) -> None:
    names = {folder.name for folder in models.iterdir()}
    assert names == {"vtr_tokenize", "vtr_frames", "vtr_text", "vtr_video", "vtr_embed_text", "vtr_embed_video"}
    for folder in models.iterdir():
        config = config_of(folder)
        assert config.name == folder.name
        assert config.max_batch_size == (8 if folder.name in {"vtr_video", "vtr_frames", "vtr_embed_video"} else 32)
        assert any((folder / "1").iterdir())  # an empty folder would not survive an archive
        assert all(dim != 0 for tensor in (*config.input, *config.output) for dim in tensor.dims)


@pytest.mark.parametrize("tower", ["text", "video"])
def test_a_tower_s_tensors_are_its_graph_s_without_the_batch(models: Path, small_bundle: Path, tower: str) -> None:
    config = config_of(models / f"vtr_{tower}")
    assert (config.backend, config.platform) == ("onnxruntime", "onnxruntime_onnx")
    assert config.instance_group[0].kind == schema.ModelInstanceGroup.KIND_AUTO
    graph = onnx.load(small_bundle / f"{tower}.onnx").graph
    for values, tensors in ((graph.input, config.input), (graph.output, config.output)):
        due = {}
        for value in values:
            batch, *rest = value.type.tensor_type.shape.dim
            assert batch.dim_param == "batch"
            due[value.name] = (ONNX_TYPES[value.type.tensor_type.elem_type], [dim.dim_value or -1 for dim in rest])
        assert feed_types(tensors) == due


def test_queries_wait_less_than_videos(models: Path) -> None:
    text, video = (config_of(models / name).dynamic_batching for name in ("vtr_text", "vtr_video"))
    assert list(text.preferred_batch_size) == [8, 32]
    assert list(video.preferred_batch_size) == [4, 8]
    assert 0 < text.max_queue_delay_microseconds < video.max_queue_delay_microseconds
    for name in ("vtr_tokenize", "vtr_frames"):
        assert config_of(models / name).HasField("dynamic_batching")
        assert config_of(models / name).dynamic_batching.max_queue_delay_microseconds == 0


@pytest.mark.parametrize("tower", ["text", "video"])
def test_warm_up_requests_are_valid(models: Path, small_model: Model, tower: str) -> None:
    folder = models / f"vtr_{tower}"
    session = onnxruntime.InferenceSession(str(folder / "1" / "model.onnx"), providers=["CPUExecutionProvider"])
    config = config_of(folder)
    rows = {request.batch_size for request in config.model_warmup}
    assert rows == {1, config.dynamic_batching.preferred_batch_size[0]}
    lengths = set()
    for request in config.model_warmup:
        feed = {}
        for name, content in request.inputs.items():
            kind = NUMPY_TYPES[content.data_type]
            if content.input_data_file:
                raw = (folder / "warmup" / content.input_data_file).read_bytes()
                row = np.frombuffer(raw, kind).reshape(list(content.dims))
            else:
                assert content.zero_data
                row = np.zeros(list(content.dims), kind)
            feed[name] = np.stack([row] * request.batch_size)
        if tower == "text":
            validate_ids(feed["input_ids"], small_model.manifest.text)
            lengths.add(feed["input_ids"].shape[1])
        else:
            assert feed["frame_mask"].all()
        [embedding] = session.run(["embedding"], feed)
        assert np.allclose(np.linalg.norm(embedding, axis=1), 1, atol=1e-5)
    assert tower == "video" or lengths == {16, 77}


@pytest.mark.parametrize("name", ["vtr_embed_text", "vtr_embed_video"])
def test_an_ensemble_s_tensors_fit_together(models: Path, name: str) -> None:
    config = config_of(models / name)
    have = feed_types(config.input)
    for step in config.ensemble_scheduling.step:
        model = config_of(models / step.model_name)
        assert model.max_batch_size == config.max_batch_size
        assert {inner: have[outer] for inner, outer in step.input_map.items()} == feed_types(model.input)
        outputs = feed_types(model.output)
        have |= {outer: outputs[inner] for inner, outer in step.output_map.items()}
    for tensor in config.output:
        assert have[tensor.name] == (tensor.data_type, list(tensor.dims))


def test_strings_survive_protobuf_s_text_format() -> None:
    text = 'a "quoted"\\path\n\tø 视频 \x01'
    parsed = text_format.Parse(
        to_pbtxt({"name": text, "parameters": entries({"k": {"string_value": text}})}), schema.ModelConfig()
    )
    assert parsed.name == parsed.parameters["k"].string_value == text


# The files


def test_a_graph_is_linked_and_stays_the_bundle_s(models: Path) -> None:
    bundle = models.parent.parent
    for tower in ("text", "video"):
        assert (models / f"vtr_{tower}" / "1" / "model.onnx").samefile(bundle / f"{tower}.onnx")
    open_bundle(bundle)


def test_without_hard_links_graphs_are_copied(
    small_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    files = write_repository(small_bundle, tmp_path / "r", video_batch=(1, 1, 1), text_batch=(1, 1, 1))
    copy = tmp_path / "r" / "vtr_text" / "1" / "model.onnx"
    assert copy in files
    assert copy.read_bytes() == (small_bundle / "text.onnx").read_bytes()
    assert not copy.samefile(small_bundle / "text.onnx")
    assert not config_of(tmp_path / "r" / "vtr_text").dynamic_batching.preferred_batch_size  # 1 is no batch


def pretend(monkeypatch: pytest.MonkeyPatch, folder: Path, *, graph_precision: str = "fp32", **graphs: Any) -> None:
    """Let the repository be written of a bundle with other graphs; their files must lie in `folder`."""
    bundle = open_bundle(folder)
    files = dict(bundle.manifest.files)
    for graph in graphs.values():
        files |= {name: files["text.onnx"] for name in (graph.file, graph.external_data) if name}
    changed = bundle.manifest.model_copy(
        update={
            "graphs": bundle.manifest.graphs.model_copy(update=graphs),
            "files": files,
            "graph_precision": graph_precision,
        }
    )
    monkeypatch.setattr(repository, "open_bundle", lambda path: Bundle(path, changed))


def linear(path: Path, *, data: str) -> GraphSpec:
    """A graph whose one weight lies beside it."""
    weight = numpy_helper.from_array(np.ones((4, 4), np.float32), "w")
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4]) for name in ("x", "embedding")]
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["embedding"])], "g", value[:1], value[1:], [weight]
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    proto.ir_version = 10
    onnx.save(proto, path, save_as_external_data=True, location=data, size_threshold=0)
    given, out = (TensorSpec(name=name, dtype="float32", shape=("batch", 4)) for name in ("x", "embedding"))
    return GraphSpec(file=path.name, inputs=(given,), outputs=(out,), external_data=data)


def test_weights_beside_a_graph_load_in_both_places(bundle_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """onnx refuses weights that have a second hard link, as an attack."""
    graph = linear(bundle_copy / "big.onnx", data="big.onnx.data")
    pretend(monkeypatch, bundle_copy, video=graph)
    write_repository(bundle_copy, bundle_copy / "triton", video_batch=(1, 2, 4), text_batch=(1, 2, 4))
    served = bundle_copy / "triton" / "vtr_video" / "1"
    assert {file.name for file in served.iterdir()} == {"model.onnx", "big.onnx.data"}
    for path in (bundle_copy / "big.onnx", served / "model.onnx"):
        onnx.checker.check_model(onnx.load(path))
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        assert (session.run(None, {"x": np.ones((2, 4), np.float32)})[0] == 4).all()


def test_the_second_stage_is_served_as_it_is(bundle_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its first axes are words and candidates, which are no batch of requests."""
    shutil.copy(bundle_copy / "text.onnx", bundle_copy / "rerank.onnx")
    inputs = (
        TensorSpec(name="word_embeddings", dtype="float32", shape=("tokens", 64)),
        TensorSpec(name="frame_mask", dtype="bool", shape=("candidates", 12)),
    )
    scores = TensorSpec(name="scores", dtype="float32", shape=("candidates",))
    pretend(monkeypatch, bundle_copy, rerank=GraphSpec(file="rerank.onnx", inputs=inputs, outputs=(scores,)))
    write_repository(bundle_copy, bundle_copy / "triton", video_batch=(1, 2, 4), text_batch=(1, 2, 4))
    config = config_of(bundle_copy / "triton" / "vtr_rerank")
    assert config.max_batch_size == 0
    assert not config.HasField("dynamic_batching")
    assert feed_types(config.input) == {
        "word_embeddings": (schema.TYPE_FP32, [-1, 64]),
        "frame_mask": (schema.TYPE_BOOL, [-1, 12]),
    }
    assert feed_types(config.output) == {"scores": (schema.TYPE_FP32, [-1])}


@pytest.mark.parametrize(("precision", "kind"), [("fp16", "KIND_GPU"), ("bf16", "KIND_GPU"), ("int8", "KIND_AUTO")])
def test_a_graph_that_no_cpu_runs_asks_for_a_gpu(
    small_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str, kind: str
) -> None:
    pretend(monkeypatch, small_bundle, graph_precision=precision)
    write_repository(small_bundle, tmp_path / "r", video_batch=(1, 2, 4), text_batch=(1, 2, 4))
    group = config_of(tmp_path / "r" / "vtr_text").instance_group[0]
    assert schema.ModelInstanceGroup.Kind.Name(group.kind) == kind
    python = config_of(tmp_path / "r" / "vtr_frames").instance_group[0]
    assert schema.ModelInstanceGroup.Kind.Name(python.kind) == "KIND_CPU"


@pytest.mark.parametrize(
    ("sizes", "words"),
    [((2, 4, 8), "give --batch 1:4:8, not 2:4:8"), ((1, 8, 4), "rising order"), ((1, 0, 4), "rising order")],
)
def test_a_range_that_triton_cannot_keep_is_refused(
    small_bundle: Path, tmp_path: Path, sizes: tuple[int, int, int], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        write_repository(small_bundle, tmp_path / "r", video_batch=(1, 2, 4), text_batch=sizes)
    assert not (tmp_path / "r").exists()


def test_nothing_is_written_over_or_of_a_damaged_bundle(bundle_copy: Path, tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    with pytest.raises(OutputExistsError, match="exists already"):
        write_repository(bundle_copy, tmp_path / "r", video_batch=(1, 2, 4), text_batch=(1, 2, 4))
    with (bundle_copy / "text.onnx").open("ab") as stream:
        stream.write(b"x")
    with pytest.raises(BundleError, match=r"text\.onnx has"):
        write_repository(bundle_copy, tmp_path / "other", video_batch=(1, 2, 4), text_batch=(1, 2, 4))
    assert not (tmp_path / "other").exists()
