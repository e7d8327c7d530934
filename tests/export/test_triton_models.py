"""The repository's Python models in a stand-in for the server, and the ensembles step by step."""

from __future__ import annotations

import importlib.util
import os
import shutil
import struct
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnxruntime
import pytest
from google.protobuf import json_format, text_format
from numpy.typing import NDArray
from tritonclient.grpc import model_config_pb2 as schema

from vtr_export.triton import write_repository
from vtr_runtime.model import Model
from vtr_runtime.video import read_frames

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


# A stand-in for the server's Python backend, with the names and the habits of `triton_python_backend_utils`


class TritonModelException(Exception):  # noqa: N818  # the backend's own name
    pass


class TritonError:
    INTERNAL, INVALID_ARG = 1, 3

    def __init__(self, message: str, code: int = INTERNAL) -> None:
        message.encode("utf-8")  # the backend hands it to C++ and fails the whole batch where that cannot be
        self._message, self._code = message, code

    def message(self) -> str:
        return self._message

    def code(self) -> int:
        return self._code


class Tensor:
    def __init__(self, name: str, array: NDArray[Any]) -> None:
        assert array.dtype.type in NUMPY_TYPES.values(), array.dtype
        self._name = name
        self._array = _through_bytes(array) if array.dtype == np.object_ else np.ascontiguousarray(array)

    def name(self) -> str:
        return self._name

    def as_numpy(self) -> NDArray[Any]:
        return self._array


def _through_bytes(array: NDArray[Any]) -> NDArray[Any]:
    """Strings cross between processes as length and bytes, and come back as bytes."""
    packed = b""
    for item in array.reshape(-1):
        raw = item if isinstance(item, bytes) else str(item).encode("utf-8")
        packed += struct.pack("<I", len(raw)) + raw
    unpacked, at = [], 0
    while at < len(packed):
        [length] = struct.unpack_from("<I", packed, at)
        unpacked.append(packed[at + 4 : at + 4 + length])
        at += 4 + length
    back = np.empty(len(unpacked), np.object_)
    back[:] = unpacked
    return back.reshape(array.shape)


@dataclass
class InferenceRequest:
    tensors: list[Tensor]

    def inputs(self) -> list[Tensor]:
        return self.tensors


class InferenceResponse:
    def __init__(self, output_tensors: list[Tensor], error: TritonError | None = None) -> None:
        assert isinstance(output_tensors, list)
        self._tensors, self._error = output_tensors, error

    def outputs(self) -> dict[str, NDArray[Any]]:
        assert self._error is None, self._error.message()
        return {tensor.name(): tensor.as_numpy() for tensor in self._tensors}

    def error(self) -> TritonError:
        assert self._error is not None
        return self._error


def get_input_tensor_by_name(request: InferenceRequest, name: str) -> Tensor | None:
    return next((tensor for tensor in request.inputs() if tensor.name() == name), None)


@pytest.fixture(autouse=True)
def backend(monkeypatch: pytest.MonkeyPatch) -> None:
    utils = ModuleType("triton_python_backend_utils")
    for thing in (TritonModelException, TritonError, Tensor, InferenceResponse, get_input_tensor_by_name):
        setattr(utils, thing.__name__, thing)
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", utils)


def start(folder: Path, **parameters: str) -> Any:
    """Load `1/model.py` of a model's folder as the backend does."""
    config = config_of(folder)
    for key, value in parameters.items():
        config.parameters[key].string_value = value
    spec = importlib.util.spec_from_file_location("model", folder / "1" / "model.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model = module.TritonPythonModel()
    described = json_format.MessageToJson(config, preserving_proto_field_name=True)
    model.initialize({"model_config": described, "model_repository": str(folder), "model_version": "1"})
    return model


def ask(model: Any, name: str, *requests: Sequence[str | bytes]) -> list[InferenceResponse]:
    """Each request is a batch of strings; all are executed together."""
    tensors = [Tensor(name, np.array([[item] for item in request], np.object_)) for request in requests]
    responses: list[InferenceResponse] = model.execute([InferenceRequest([tensor]) for tensor in tensors])
    assert len(responses) == len(requests)
    return responses


@pytest.fixture
def tokenize(models: Path) -> Any:
    return start(models / "vtr_tokenize")


@pytest.fixture
def frames(models: Path) -> Iterator[Any]:
    model = start(models / "vtr_frames")
    yield model
    model.finalize()


TEXTS = [
    "a dog runs",
    "",
    "NUL\0in the middle",
    "🦊 jumps 👩‍👩‍👧",
    "a ‘quoted’ ﬁsh &amp;amp; chips",
    "long " * 100,
    "é",
]


def test_ids_are_the_runtime_s_padded_to_few_lengths(tokenize: Any, small_model: Model) -> None:
    responses = ask(tokenize, "text", *[[text] for text in TEXTS], TEXTS)
    want = small_model.tokenize(TEXTS)
    for row, response in enumerate(responses[:-1]):
        ids = response.outputs()["input_ids"]
        used = np.count_nonzero(want[row])
        assert ids.dtype == np.int32
        assert ids.shape == (1, min(77, -(-used // 16) * 16))
        assert (ids[0] == want[row, : ids.shape[1]]).all()
    assert (responses[-1].outputs()["input_ids"] == want).all()


def test_a_caption_that_is_none_fails_its_own_request(tokenize: Any, small_model: Model) -> None:
    good, bad, long = ask(tokenize, "text", ["a dog"], ["fine", b"caf\xe9"], ["x" * 1_000_001])
    assert (good.outputs()["input_ids"] == small_model.tokenize(["a dog"])[:, :16]).all()
    assert bad.error().message() == "caption 1 is not UTF-8 at byte 3; send it encoded as UTF-8"
    assert "too long; cut it" in long.error().message()
    assert bad.error().code() == long.error().code() == TritonError.INVALID_ARG


def test_frames_are_the_runtime_s(frames: Any, small_model: Model, clips: Path, good_clips: list[Path]) -> None:
    damaged = clips / "media3_roadtrip-vp92-10bit.webm"
    requests = [[path.read_bytes()] for path in (*good_clips, damaged)]
    for path, response in zip((*good_clips, damaged), ask(frames, "video", *requests), strict=True):
        want, got = read_frames(path, small_model.manifest.frames), response.outputs()
        assert (got["frames"][0] == want.pixels).all()
        assert (got["frame_mask"][0] == want.mask).all()
        assert got["warnings"].shape == (1, 1)
        assert got["warnings"][0, 0].decode() == "; ".join(want.warnings)
    assert want.warnings  # of the damaged one
    [both] = ask(frames, "video", [path.read_bytes() for path in good_clips[:2]])
    assert both.outputs()["frames"].shape == (2, 12, 32, 32, 3)


def test_a_bad_video_fails_its_own_request(frames: Any, clips: Path, good_clips: list[Path]) -> None:
    good = good_clips[0].read_bytes()
    no_video = (clips / "media3_sample_audio_only.mp4").read_bytes()
    path = os.fsencode(good_clips[0])
    responses = ask(frames, "video", [good], [good, b""], [no_video], [b"no video at all"], [path], [good])
    for response in (responses[0], responses[-1]):
        assert response.outputs()["frame_mask"].any()
    messages = [response.error().message() for response in responses[1:-1]]
    assert messages[0] == "video 1 of 2: the video is empty; fetch it again"
    assert "the video has no video stream" in messages[1]
    assert all("cannot be read as a video" in message for message in messages[2:])  # a path is no video either
    assert not any("/" in message for message in messages)


def test_paths_are_read_only_below_the_folder_that_the_server_names(
    models: Path,
    clips: Path,
    tmp_path: Path,
    small_model: Model,
) -> None:
    root, outside = tmp_path / "media", tmp_path / "secret.mov"
    root.mkdir()
    clip = clips / "decord_video_180.mov"
    for target in (outside, root / "clip.mov", root / os.fsdecode(b"\xff.mov")):
        shutil.copy(clip, target)
    (root / "link.mov").symlink_to(outside)
    (root / "text.mov").write_text("no video")
    model = start(models / "vtr_frames", media_root=str(root))
    names = [b"clip.mov", b"\xff.mov", b"../secret.mov", os.fsencode(outside), b"link.mov", b"none.mov"]
    names += [b"a\0b", b"x" * 5000, b"\xfe", b"", b"text.mov"]
    responses = ask(model, "video", *[[name] for name in names])
    model.finalize()
    want = read_frames(clip, small_model.manifest.frames)
    for response in responses[:2]:
        assert (response.outputs()["frames"][0] == want.pixels).all()
    for response in responses[2:-2]:
        assert "below the server's media_root" in response.error().message()
    assert "'' is a folder" in responses[-2].error().message()
    assert "'text.mov' cannot be read" in responses[-1].error().message()
    assert not any(str(tmp_path) in response.error().message() for response in (*responses[2:3], *responses[4:]))


def test_a_model_that_cannot_start_says_why(
    models: Path,
    bundle_copy: Path,
    tmp_path: Path,
) -> None:
    with pytest.raises(TritonModelException, match="media_root /nowhere is not a folder"):
        start(models / "vtr_frames", media_root="/nowhere")
    (bundle_copy / "tokenizer.json").write_text("{}")
    for name in ("vtr_frames", "vtr_tokenize"):
        with pytest.raises(TritonModelException, match=r"tokenizer\.json has 2 bytes.*copy the bundle again"):
            start(models / name, bundle=str(bundle_copy))
        with pytest.raises(TritonModelException, match="is not a folder"):
            start(models / name, bundle=str(tmp_path / "gone"))


def test_bundle_and_repository_move_together(models: Path, tmp_path: Path) -> None:
    shutil.copytree(models.parent.parent, tmp_path / "elsewhere")
    start(tmp_path / "elsewhere" / "engines" / "triton" / "vtr_tokenize")
    with pytest.raises(TritonModelException, match="is not a"):
        start(Path(shutil.copytree(models, tmp_path / "alone")) / "vtr_tokenize")


# The ensembles, step by step


@dataclass
class Server:
    """Runs one request through an ensemble as its configuration says."""

    models: Path
    python: dict[str, Any]

    def infer(self, name: str, given: Tensor) -> dict[str, NDArray[Any]]:
        config = config_of(self.models / name)
        have = {given.name(): given.as_numpy()}
        for step in config.ensemble_scheduling.step:
            feed = {inner: have[outer] for inner, outer in step.input_map.items()}
            made = self._run(step.model_name, feed)
            have |= {outer: made[inner] for inner, outer in step.output_map.items()}
        for tensor in config.output:
            assert have[tensor.name].dtype == NUMPY_TYPES[tensor.data_type]
            assert list(have[tensor.name].shape[1:]) == list(tensor.dims)
        return {tensor.name: have[tensor.name] for tensor in config.output}

    def _run(self, name: str, feed: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        if name in self.python:
            request = InferenceRequest([Tensor(*item) for item in feed.items()])
            outputs: dict[str, NDArray[Any]] = self.python[name].execute([request])[0].outputs()
            return outputs
        path = self.models / name / "1" / "model.onnx"
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(names, feed), strict=True))


def test_the_ensembles_embed_as_the_runtime_does(
    models: Path, tokenize: Any, frames: Any, small_model: Model, good_clips: list[Path]
) -> None:
    server = Server(models, {"vtr_tokenize": tokenize, "vtr_frames": frames})
    sent = Tensor("text", np.array([[text] for text in TEXTS], np.object_))
    got = server.infer("vtr_embed_text", sent)["embedding"]
    assert np.abs(got - small_model.encode_texts(TEXTS)).max() < 1e-5
    sent = Tensor("video", np.array([[path.read_bytes()] for path in good_clips], np.object_))
    answer = server.infer("vtr_embed_video", sent)
    assert np.abs(answer["embedding"] - small_model.encode_videos(good_clips)).max() < 1e-5
    assert {"embedding", "frame_mask", "warnings"} <= set(answer)
    # Rows differ, or agreement would mean little.
    assert np.abs(got[0] - got[3]).max() > 1e-2
