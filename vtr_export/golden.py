"""PyTorch -> golden vectors: what every stage gives for a few real clips and hard sentences."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vtr_runtime.golden import GOLDEN_SCHEMA, exact_times, frame_digests
from vtr_runtime.manifest import FrameSpec
from vtr_runtime.stages import stage_of
from vtr_runtime.tensor_file import save_tensors
from vtr_runtime.text import Tokenizer
from vtr_runtime.video import packet_times, read_frames, read_rgb

from .graph.modules import RerankGraph
from .model import RetrievalModel
from .provenance import library_versions, source_revision

MEDIA = Path(__file__).parent / "media"
NOT_CLIPS = (".md", ".py")
# Frames are stored as inputs of the video graph up to this size; a clip beyond it is decoded by the host instead.
MAX_PIXEL_BYTES = 7_500_000
TEXTS = (
    "a red circle moves to the left",
    "two people cook pasta in a small kitchen and talk",
    "Dog",
    "",
    "   \t\n",
    "the man says: “it’s 5 o’clock” — ﬁne",
    "caf\u00e9 cafe\u0301 na\u00efve",
    "Ｆｕｌｌ ｗｉｄｔｈ ｔｅｘｔ",
    "a cat &amp; a dog &amp;lt;3",
    "it's what they've said, isn't it?",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467 playing \u26bd\ufe0f in the \U0001f3de\ufe0f",
    "犬が公園を走る",
    "собака бежит по парку",
    "كلب يركض في الحديقة",
    "a caption with <end_of_text> inside",
    "<start_of_text> in front",
    "tab\tand\u0000control\u0007characters\u200b",
    "H2O, 3.14 and 1,000,000 at 50%",
    "supercalifragilisticexpialidocious" * 3,
    "a very long story about a walk " * 30,
    "!!! ... ??? ###",
    "ΟΔΥΣΣΕΥΣ İstanbul STRASSE straße",
    "one\r\ntwo lines",
    "a b c d e f g h i j k l m n o p q r s t u v w x y z " * 3,
    # Behind a "<" the repair of characters leaves entities alone: only here are two rounds of unescaping seen.
    "if 2 < 3 then &amp;amp;lt;yes&amp;amp;gt;",
)

# Of TEXTS: many words, one, none.
RERANKED = (1, 2, 3)


@dataclass
class _Writer:
    """Collects cases; an array is stored once, however many cases use it."""

    tensors: dict[str, NDArray[Any]] = field(default_factory=dict)
    cases: list[dict[str, Any]] = field(default_factory=list)
    labels: dict[str, list[str]] = field(default_factory=dict)  # by axis: what its rows are called

    def keep(self, key: str, array: NDArray[Any]) -> str:
        self.tensors.setdefault(key, np.ascontiguousarray(array))
        return key

    def add(self, stage: str, case: str, inputs: dict[str, Any], expected: dict[str, NDArray[Any]]) -> None:
        keys = {name: self.keep(f"{stage}/{case}/{name}", array) for name, array in expected.items()}
        gates = stage_of(stage).gates
        self.cases.append(
            {
                "id": f"{stage}/{case}",
                "stage": stage,
                "inputs": inputs,
                "expected": keys,
                "comparator": {precision: gate.comparator for precision, gate in gates.items()},
                "tolerance": {precision: gate.limit for precision, gate in gates.items()},
            }
        )


def write_golden(
    model: RetrievalModel, tokenizer: Tokenizer, folder: Path, *, weights_sha256: str, rerank: bool = False
) -> list[str]:
    """Write golden.json, golden.safetensors and the clips; returns the files' names inside `folder`. The same model,
    revision and libraries give the same bytes.

    `rerank`: the bundle has a second stage, which gets cases too."""
    (folder / "media").mkdir(parents=True)
    clips = golden_clips()
    names = [f"media/{path.name}" for path in [*clips, MEDIA / "LICENCES.md"]]
    for name in names:
        (folder / name).write_bytes((MEDIA / Path(name).name).read_bytes())
    writer = _Writer()
    for clip in clips:
        _add_clip(writer, model.config.frames, clip)
    ids = tokenizer.encode(TEXTS)
    writer.labels["caption"] = list(TEXTS)
    writer.add("ids", "texts", {"texts": list(TEXTS)}, {"ids": ids})
    with torch.inference_mode():
        texts = _add_texts(writer, model, ids)
        videos = _add_videos(writer, model, clips)
        if rerank:
            _add_rerank(writer, model, ids)
    inputs = {
        "tensors": {"input_ids": "inputs/input_ids", "frames": "inputs/frames", "frame_mask": "inputs/frame_mask"}
    }
    writer.add("ranking", "texts-x-clips", inputs, {"scores": texts.astype(np.float64) @ videos.astype(np.float64).T})
    save_tensors(folder / "golden.safetensors", writer.tensors)
    header = {
        "schema": GOLDEN_SCHEMA,
        "made_by": {**library_versions(), **source_revision(), "weights_sha256": weights_sha256},
        "tensors": ["golden.safetensors"],
        "labels": writer.labels,
        "cases": writer.cases,
    }
    (folder / "golden.json").write_text(json.dumps(header, indent=1) + "\n", encoding="utf-8")
    return ["golden.json", "golden.safetensors", *names]


def golden_clips() -> list[Path]:
    """The clips of every bundle, in order of their names."""
    return sorted(path for path in MEDIA.iterdir() if path.suffix not in NOT_CLIPS)


def _add_clip(writer: _Writer, spec: FrameSpec, clip: Path) -> None:
    media = {"media": f"media/{clip.name}"}
    frames = read_frames(clip, spec)
    writer.add("container", clip.name, media, {"times": exact_times(packet_times(clip))})
    writer.add("indices", clip.name, media, {"times": frames.times, "mask": frames.mask})
    writer.add("rgb", clip.name, media, {"sha256": frame_digests(read_rgb(clip, spec).images)})
    writer.add("pixels", clip.name, media, {"sha256": frame_digests(frames.pixels)})


def _add_texts(writer: _Writer, model: RetrievalModel, ids: NDArray[np.int32]) -> NDArray[np.float32]:
    inputs = {"tensors": {"input_ids": writer.keep("inputs/input_ids", ids)}}
    stages = model.text.stages(torch.from_numpy(ids))
    for name, tensor in stages.items():
        writer.add(name, "texts", inputs, {"embedding" if name == "aligned" else name: tensor.numpy()})
    return stages["aligned"].numpy()


def _add_rerank(writer: _Writer, model: RetrievalModel, ids: NDArray[np.int32]) -> None:
    """Sentences of many words, one and none, against the clips of the video cases."""
    assert model.rerank is not None  # the exporter refuses --rerank without one
    graph = RerankGraph(model.rerank, model.config.rerank)
    frames, mask = (torch.from_numpy(writer.tensors[f"inputs/{name}"]) for name in ("frames", "frame_mask"))
    stored = {"frame_embeddings": model.video.stages(frames, mask)["frame_embeddings"], "frame_mask": mask}
    texts = model.text.with_words(torch.from_numpy(ids))
    for row in RERANKED:
        places = torch.arange(ids.shape[1])
        query = {
            "embedding": texts.embedding[row],
            "word_embeddings": texts.words[row],
            "word_mask": texts.word_mask[row],
            # Every other word matters: a host that ignores the weights is found out.
            "word_weights": 1.0 + (places % 2 == 0).float(),
        }
        feed = {name: ({**query, **stored})[name] for name in graph.input_names}
        keys = {
            name: writer.keep(f"inputs/{name}" if name in stored else f"inputs/rerank/{row}/{name}", value.numpy())
            for name, value in feed.items()
        }
        scores = graph(*feed.values()).numpy()
        writer.add("rerank", f"text-{row}", {"tensors": keys}, {"scores": scores})


def _add_videos(writer: _Writer, model: RetrievalModel, clips: list[Path]) -> NDArray[np.float32]:
    """Real clips, then black, white and noise with few valid frames, as far as the budget of bytes goes."""
    spec = model.config.frames
    fit = max(1, MAX_PIXEL_BYTES // (spec.count * spec.size**2 * 3))
    read = [read_frames(clip, spec) for clip in clips[:fit]]
    frames, masks = [item.pixels for item in read], [item.mask for item in read]
    names = [clip.name for clip in clips[:fit]]
    noise = np.random.default_rng(0).integers(0, 256, frames[0].shape, dtype=np.uint8)
    drawn = {"noise": noise, "black": np.zeros_like(noise), "white": np.full_like(noise, 255)}
    for row, (name, picture) in enumerate(drawn.items()):
        if len(frames) < fit:
            names.append(name)
            frames.append(picture)
            masks.append(np.arange(spec.count) < max(1, spec.count - 5 * row))
    writer.labels["clip"] = writer.labels["candidate"] = names
    arrays = {"frames": np.stack(frames), "frame_mask": np.stack(masks)}
    inputs = {"tensors": {name: writer.keep(f"inputs/{name}", array) for name, array in arrays.items()}}
    stages = model.video.stages(*(torch.from_numpy(array) for array in arrays.values()))
    for name, tensor in stages.items():
        writer.add(name, "clips", inputs, {"embedding" if name == "video_embedding" else name: tensor.numpy()})
    for clip in clips[fit:]:
        item = read_frames(clip, spec)
        one = model.video(torch.from_numpy(item.pixels[None]), torch.from_numpy(item.mask[None]))
        writer.add("video_embedding", clip.name, {"media": f"media/{clip.name}"}, {"embedding": one.numpy()})
    return stages["video_embedding"].numpy()
