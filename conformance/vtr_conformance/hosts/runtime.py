"""The Python runtime as a host, on any of its backends."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vtr_runtime.errors import MediaError
from vtr_runtime.golden import exact_times, frame_digests
from vtr_runtime.model import Clip, Model
from vtr_runtime.video import packet_times, read_frames, read_rgb

from ..cases import Case
from .base import Arrays, scores


class RuntimeHost:
    """Feeds each stage with the case's own inputs through the runtime's public parts."""

    name = "vtr-runtime"

    def __init__(self, model: Model) -> None:
        self._model = model
        self.backend = model.backend.name

    def answer(self, case: Case) -> Arrays | str:
        if case.media is not None:
            return self._answer_media(case.stage, case.media)
        if case.stage == "ids":
            return {"ids": self._model.tokenize(case.texts)}
        arrays = case.arrays or {}
        if case.stage == "ranking":
            return {"scores": scores(self._text(arrays)["embedding"], self._video(arrays)["embedding"])}
        outputs = self._video(arrays) if "frames" in arrays else self._text(arrays)
        return _pick(outputs, case.stage)

    def _answer_media(self, stage: str, path: Path) -> Arrays:
        spec = self._model.manifest.frames
        if stage == "container":
            return {"times": exact_times(packet_times(path))}
        if stage == "rgb":
            return {"sha256": frame_digests(read_rgb(path, spec).images)}
        frames = read_frames(path, spec)
        if stage == "indices":
            return {"times": frames.times, "mask": frames.mask}
        if stage == "pixels":
            return {"sha256": frame_digests(frames.pixels)}
        return {"embedding": self._model.encode_pixels(frames.pixels[None], frames.mask[None])}

    def _video(self, arrays: Arrays) -> Arrays:
        return dict(self._model.backend.video(arrays["frames"], arrays["frame_mask"]))

    def _text(self, arrays: Arrays) -> Arrays:
        return dict(self._model.backend.text(arrays["input_ids"]))

    def embed(
        self, videos: Sequence[tuple[Path, float | None, float | None]], texts: Sequence[str]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        done = list(self._model.embed_clips(Clip(*video) for video in videos))
        bad = [item.message for item in done if item.embedding is None]
        if bad:
            raise MediaError(f"{len(bad)} of {len(done)} videos of the data set cannot be read; the first: {bad[0]}")
        return np.stack([item.embedding for item in done if item.embedding is not None]), self._model.encode_texts(
            texts
        )


def _pick(outputs: Arrays, stage: str) -> Arrays | str:
    if stage in ("aligned", "video_embedding"):
        return {"embedding": outputs["embedding"]}
    if stage not in outputs:
        return f"the graph has no output {stage}; export with --debug-outputs to see it"
    return {stage: outputs[stage]}
