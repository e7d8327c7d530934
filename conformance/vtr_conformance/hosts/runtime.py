"""The Python runtime as a host, on any of its backends."""

from __future__ import annotations

from pathlib import Path

from vtr_runtime.golden import exact_times, frame_digests
from vtr_runtime.model import Model
from vtr_runtime.video import packet_times, read_frames, read_rgb

from ..cases import Case
from .base import Arrays, scores


class RuntimeHost:
    """Feeds each stage with the case's own inputs through the runtime's public parts."""

    name = "vtr-runtime"

    def __init__(self, model: Model) -> None:
        self.model = model
        self.backend = model.backend.name

    def answer(self, case: Case) -> Arrays | str:
        if case.media is not None:
            return self._answer_media(case.stage, case.media)
        if case.stage == "ids":
            return {"ids": self.model.tokenize(case.texts)}
        arrays = case.arrays or {}
        if case.stage == "ranking":
            return {"scores": scores(self._text(arrays)["embedding"], self._video(arrays)["embedding"])}
        outputs = self._video(arrays) if "frames" in arrays else self._text(arrays)
        return _pick(outputs, case.stage)

    def _answer_media(self, stage: str, path: Path) -> Arrays:
        spec = self.model.manifest.frames
        if stage == "container":
            return {"times": exact_times(packet_times(path))}
        if stage == "rgb":
            return {"sha256": frame_digests(read_rgb(path, spec).images)}
        frames = read_frames(path, spec)
        if stage == "indices":
            return {"times": frames.times, "mask": frames.mask}
        if stage == "pixels":
            return {"sha256": frame_digests(frames.pixels)}
        return {"embedding": self.model.encode_pixels(frames.pixels[None], frames.mask[None])}

    def _video(self, arrays: Arrays) -> Arrays:
        return dict(self.model.backend.video(arrays["frames"], arrays["frame_mask"]))

    def _text(self, arrays: Arrays) -> Arrays:
        return dict(self.model.backend.text(arrays["input_ids"]))


def _pick(outputs: Arrays, stage: str) -> Arrays | str:
    if stage in ("aligned", "video_embedding"):
        return {"embedding": outputs["embedding"]}
    if stage not in outputs:
        return f"the graph has no output {stage}; export with --debug-outputs to see it"
    return {stage: outputs[stage]}
