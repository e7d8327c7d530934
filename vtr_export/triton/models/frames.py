"""Triton's Python backend: video files to the frames that the video tower sees."""

from __future__ import annotations

import json
import os
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found]  # only inside the server

from vtr_runtime.bundle import open_bundle
from vtr_runtime.errors import ConfigError, MediaError, VtrError
from vtr_runtime.manifest import FrameSpec
from vtr_runtime.video import Frames, read_frames


class TritonPythonModel:
    """`video` TYPE_STRING [B, 1] -> `frames` TYPE_UINT8 [B, T, S, S, 3], `frame_mask` TYPE_BOOL [B, T] and `warnings`
    TYPE_STRING [B, 1]: what was not right with the file, empty where nothing was.

    A video is the content of a file. Only where the parameter `media_root` names a folder of the server is it a path
    below that folder instead: a server must not open whatever a client names."""

    def initialize(self, args: dict[str, str]) -> None:
        parameters = json.loads(args["model_config"])["parameters"]
        try:
            bundle = open_bundle(Path(args["model_repository"], parameters["bundle"]["string_value"]).resolve())
            self._spec = bundle.manifest.frames
            self._root = _media_root(parameters["media_root"].get("string_value", ""))
        except VtrError as error:
            raise pb_utils.TritonModelException(str(error)) from error
        self._pool = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="decode")

    def execute(self, requests: list[Any]) -> list[Any]:
        videos = [pb_utils.get_input_tensor_by_name(request, "video").as_numpy().reshape(-1) for request in requests]
        started = [[self._pool.submit(self._read, video) for video in batch] for batch in videos]
        return [_answer(batch) for batch in started]

    def finalize(self) -> None:
        self._pool.shutdown()

    def _read(self, video: bytes) -> Frames:
        if self._root is not None:
            name = os.fsdecode(video)
            # With repr: the server fails a whole batch over a message that is no UTF-8, as a name may be.
            return _read_as(repr(name), _below(self._root, name), self._spec)
        with TemporaryDirectory() as folder:
            path = Path(folder, "video")
            path.write_bytes(video)
            return _read_as("the video", path, self._spec)


def _answer(batch: list[Future[Frames]]) -> Any:
    """One response. Whatever went wrong is this request's error; the others of the batch have theirs."""
    read: list[Frames] = []
    for number, future in enumerate(batch):
        try:
            read.append(future.result())
        except MediaError as error:
            return _failed(f"video {number} of {len(batch)}: {error}", pb_utils.TritonError.INVALID_ARG)
        except Exception as error:
            return _failed(f"video {number} of {len(batch)}: {error!r}", pb_utils.TritonError.INTERNAL)
    outputs = {
        "frames": np.stack([frames.pixels for frames in read]),
        "frame_mask": np.stack([frames.mask for frames in read]),
        "warnings": np.array([["; ".join(frames.warnings)] for frames in read], np.object_),
    }
    return pb_utils.InferenceResponse(output_tensors=[pb_utils.Tensor(name, array) for name, array in outputs.items()])


def _failed(message: str, code: Any) -> Any:
    return pb_utils.InferenceResponse(output_tensors=[], error=pb_utils.TritonError(message, code))


def _media_root(folder: str) -> Path | None:
    if not folder:
        return None
    if not Path(folder).is_dir():
        raise ConfigError(
            f"media_root {folder} is not a folder; correct it in vtr_frames/config.pbtxt, or leave it empty"
        )
    return Path(folder).resolve()


def _below(root: Path, name: str) -> Path:
    """The path that a client named. What lies elsewhere is refused like what does not exist: neither is its to know."""
    path: Path | None
    try:
        path = (root / name).resolve(strict=True)
    except (OSError, ValueError, RuntimeError):  # absent or too long; a NUL; a loop of links
        path = None
    if path is None or not path.is_relative_to(root):
        raise MediaError(f"there is no {name!r} below the server's media_root; give the path of a video there")
    return path


def _read_as(name: str, path: Path, spec: FrameSpec) -> Frames:
    """Read a file; the error names it as the client does, without the server's folders."""
    try:
        return read_frames(path, spec)
    except MediaError as error:
        raise MediaError(str(error).replace(str(path), name)) from error
