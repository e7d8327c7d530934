"""Two clips of twelve frames through the image tower, on every engine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
from contestant import CLIPS, ENGINES, FRAMES, MODEL, SIZE, Contestant
from numpy.typing import NDArray
from openvino_cpu import compile_openvino

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # OpenAI's, open_clip's default
PROJECTION = "projection.npy"
EMBEDDING = 512
Run = Callable[[], NDArray[np.float32]]


def prepare_video(contestant: Contestant, threads: int) -> tuple[dict[str, Run], Callable[[Any], NDArray[np.float32]]]:
    """The timed pass, and what makes of its output one unit embedding per clip, float32 [2, D], outside the clock."""
    frames = make_frames()
    if contestant.ours:
        return {"video": _our_graph(contestant, threads, frames)}, np.asarray
    pixels = normalise(frames)
    if contestant.engine in ENGINES:
        return {"video": _peer_graph(contestant, threads, pixels)}, _project_and_pool(contestant.source)
    return {"video": _open_clip(contestant, pixels)}, mean_pool


def make_frames() -> NDArray[np.uint8]:
    """Clips uint8 [2, 12, S, S, 3] that differ from each other and from frame to frame: coarse random mosaics."""
    coarse = np.random.default_rng(0).integers(0, 256, (CLIPS, FRAMES, 7, 7, 3), dtype=np.uint8)
    return np.kron(coarse, np.ones((1, 1, SIZE // 7, SIZE // 7, 1), np.uint8))


def normalise(frames: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What open_clip's tower takes: float32 [24, 3, S, S], normalised."""
    mean, std = np.array(MEAN, np.float32), np.array(STD, np.float32)
    flat = frames.reshape(-1, *frames.shape[2:]).astype(np.float32) / 255
    return np.ascontiguousarray(((flat - mean) / std).transpose(0, 3, 1, 2))


def mean_pool(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Picture features [24, D] -> unit embeddings [2, D]: CLIP4Clip's mean of unit vectors."""
    unit = features / np.linalg.norm(features, axis=-1, keepdims=True)
    mean = unit.reshape(CLIPS, FRAMES, -1).mean(1)
    return np.asarray(mean / np.linalg.norm(mean, axis=-1, keepdims=True), np.float32)


def _project_and_pool(graph: Path) -> Callable[[Any], NDArray[np.float32]]:
    """optimum's graph ends before the projection, which then lies beside it; without it nothing can be compared."""
    beside = graph.with_name(PROJECTION)
    projection = np.load(beside) if beside.is_file() else None

    def finish(features: NDArray[np.float32]) -> NDArray[np.float32]:
        if features.shape[-1] == EMBEDDING:
            return mean_pool(features)
        return mean_pool(features @ projection) if projection is not None else np.zeros(0, np.float32)

    return finish


def load_open_clip(weights: Path) -> Any:
    """open_clip's own image tower with the weights that all contestants share."""
    import open_clip
    import torch

    model = open_clip.create_model(MODEL, load_weights=False)
    model.load_state_dict(torch.load(weights, weights_only=True))
    return model.visual.eval()


def _open_clip(contestant: Contestant, frames: NDArray[np.float32]) -> Run:
    import torch

    tower: Any = load_open_clip(contestant.source)
    pixels = torch.from_numpy(frames)
    autocast = contestant.engine == "autocast"
    if contestant.precision == "bf16" and not autocast:
        tower, pixels = tower.bfloat16(), pixels.bfloat16()
    if contestant.engine == "compiled":
        import torch._inductor.config

        torch._inductor.config.freezing = True
        tower = torch.compile(tower)

    def run() -> NDArray[np.float32]:
        # Freezing needs no_grad: under inference_mode inductor passes it over.
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            return cast(NDArray[np.float32], tower(pixels).float().numpy())

    return run


def _peer_graph(contestant: Contestant, threads: int, pixels: NDArray[np.float32]) -> Run:
    """A graph with one input of pixels; of several outputs the one that optimum calls pooler_output."""
    if contestant.engine == "openvino":
        request = compile_openvino(contestant.source, hint=contestant.hint, threads=threads)
        names = [name for output in request.model_outputs for name in output.names]
        key = "pooler_output" if "pooler_output" in names else 0
        return lambda: request.infer([pixels], share_inputs=True)[key]
    session = open_session(contestant.source, threads)
    names = [output.name for output in session.get_outputs()]
    wanted = "pooler_output" if "pooler_output" in names else names[0]
    feed = {session.get_inputs()[0].name: pixels}
    return lambda: session.run([wanted], feed)[0]


def _our_graph(contestant: Contestant, threads: int, frames: NDArray[np.uint8]) -> Run:
    from vtr_runtime.bundle import open_bundle

    graph = contestant.source
    if graph.is_dir():
        bundle = open_bundle(graph)
        graph = bundle.file(bundle.manifest.graphs.video.file)
    feed = {"frames": frames, "frame_mask": np.ones(frames.shape[:2], bool)}
    if contestant.engine == "openvino":
        request = compile_openvino(graph, hint=contestant.hint, threads=threads)
        return lambda: request.infer(feed, share_inputs=True)["embedding"]
    session = open_session(graph, threads)
    return lambda: session.run(["embedding"], feed)[0]


def open_session(path: Path, threads: int) -> Any:
    """ONNX Runtime's defaults, its number of threads apart."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
