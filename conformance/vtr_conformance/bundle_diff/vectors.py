"""How far two bundles' vectors are apart on A's golden inputs: their references', and what a host gives now."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vtr_runtime.bundle import TOKENIZER, Bundle
from vtr_runtime.errors import UnavailableError
from vtr_runtime.manifest import FrameSpec, Precision, file_sha256
from vtr_runtime.stages import BY_NAME, STAGES, stage_of
from vtr_runtime.text import Tokenizer
from vtr_runtime.video import read_frames

from ..cases import Case
from ..comparators import compare
from ..hosts import Host
from ..hosts.base import Arrays, scores
from ..places import Labels, describe
from .records import Moved

# An output of a graph -> its stage; the others are called as their stage.
EMBEDDING = {"text": "aligned", "video": "video_embedding"}


@dataclass(frozen=True)
class Side:
    """A bundle, and what runs it."""

    bundle: Bundle
    host: Host

    @property
    def tokenizer(self) -> Tokenizer:
        return Tokenizer.from_file(self.bundle.file(TOKENIZER), self.bundle.manifest.text)

    @property
    def frames(self) -> FrameSpec:
        return self.bundle.manifest.frames


@dataclass(frozen=True)
class _Pair:
    """One case in both bundles: what A and what B gives."""

    stage: str
    a: Arrays
    b: Arrays
    labels: Labels


def compare_golden(a: Sequence[Case], b: Sequence[Case]) -> tuple[list[Moved], list[str]]:
    """Of each stage the golden vectors of both, as far as their inputs are the same; they are PyTorch's own, so the
    gates are those of fp32."""
    others = {case.id: case for case in b}
    pairs = []
    skipped: dict[str, dict[str, None]] = {}
    for case in a:
        other = others.get(case.id)
        if other is not None and _same_inputs(case, other):
            pairs.append(_Pair(case.stage, case.expected, other.expected, case.labels))
        else:
            reason = "not in B" if other is None else "other inputs"
            skipped.setdefault(reason, {})[stage_of(case.stage).name] = None
    said = "; ".join(f"{reason}: {', '.join(stages)}" for reason, stages in skipped.items())
    notes = [f"golden vectors that cannot be compared: {said}"] if said else []
    return _judge_all(pairs, "fp32"), notes


def compare_found(a: Side, b: Side, cases: Sequence[Case]) -> tuple[list[Moved], list[str]]:
    """Both bundles run on A's golden sentences and clips, judged by the gates of A's precision; and what could not be
    compared. Each bundle tokenizes for itself; frames are A's golden ones where both read clips alike, else each
    bundle reads the clips its own way.

    UnavailableError for a host that does not run the graphs here."""
    for side in (a, b):
        if side.host.note is not None:
            raise UnavailableError(side.host.note)
    notes: list[str] = []
    [words] = [case for case in cases if case.stage == "ids"]
    ids = [{"ids": side.tokenizer.encode(words.texts)} for side in (a, b)]
    texts = [side.host.run("text", {"input_ids": row["ids"]}) for side, row in zip((a, b), ids, strict=True)]
    feeds, clips = _clips(a, b, cases, notes)
    videos = [side.host.run("video", feed) for side, feed in zip((a, b), feeds, strict=True)]
    labels = {"caption": words.texts, "clip": clips}
    pairs = [_Pair("ids", ids[0], ids[1], labels), *_outputs("text", texts, labels, notes)]
    pairs += _outputs("video", videos, labels, notes)
    pairs += _second_stages(a, b, cases, notes)
    ranked = [{"scores": scores(t["embedding"], v["embedding"])} for t, v in zip(texts, videos, strict=True)]
    return _judge_all([*pairs, _Pair("ranking", ranked[0], ranked[1], labels)], a.host.precision), notes


def smallest_cosine(a: NDArray[Any], b: NDArray[Any]) -> float | None:
    """Of vectors [..., D], but those that are zero in both. None where the shapes differ, or nothing is left."""
    if a.shape != b.shape or a.ndim < 2:
        return None
    one, other = (x.reshape(-1, x.shape[-1]).astype(np.float64) for x in (a, b))
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    there = np.any(one != 0, axis=1) | np.any(other != 0, axis=1)
    cosines = (one * other).sum(axis=1)[there] / norms[there].clip(min=1e-300)
    return float(cosines.min()) if cosines.size else None


def _same_inputs(a: Case, b: Case) -> bool:
    if a.texts != b.texts or (a.media is None) != (b.media is None):
        return False
    if a.media is not None and b.media is not None and file_sha256(a.media) != file_sha256(b.media):
        return False
    one, other = a.arrays or {}, b.arrays or {}
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def _clips(a: Side, b: Side, cases: Sequence[Case], notes: list[str]) -> tuple[list[Arrays], Sequence[str]]:
    """What to feed each video graph with, and the clips' names."""
    [golden] = [case for case in cases if case.stage == "video_embedding" and case.arrays is not None]
    if (a.frames.count, a.frames.size) == (b.frames.count, b.frames.size):
        return [dict(golden.arrays or {})] * 2, golden.labels.get("clip", ())
    notes.append("the bundles take other frames: each read A's golden clips by its own rule")
    paths: list[Path] = [case.media for case in cases if case.stage == "pixels" and case.media is not None]
    feeds: list[Arrays] = []
    for side in (a, b):
        read = [read_frames(path, side.frames) for path in paths]
        feeds.append({"frames": np.stack([f.pixels for f in read]), "frame_mask": np.stack([f.mask for f in read])})
    return feeds, [path.name for path in paths]


def _outputs(graph: str, found: Sequence[Arrays], labels: Labels, notes: list[str]) -> Iterator[_Pair]:
    a, b = found
    for name in (name for name in a if name in b):
        stage = EMBEDDING[graph] if name == "embedding" else name
        if stage not in BY_NAME and not stage.startswith("sampler_step_"):
            continue
        one, other = a[name].shape[1:], b[name].shape[1:]
        if one != other:
            notes.append(f"{stage}: {list(one)} and {list(other)} numbers a row have no distance")
            continue
        yield _Pair(stage, {name: a[name]}, {name: b[name]}, labels)


def _second_stages(a: Side, b: Side, cases: Sequence[Case], notes: list[str]) -> Iterator[_Pair]:
    one, other = (side.bundle.manifest.graphs.rerank for side in (a, b))
    if one is None or other is None:
        return
    if one.inputs != other.inputs:
        notes.append("rerank: the second stages take other inputs")
        return
    for case in (case for case in cases if case.stage == "rerank"):
        found = [{"scores": side.host.run("rerank", dict(case.arrays or {}))["scores"]} for side in (a, b)]
        yield _Pair("rerank", found[0], found[1], case.labels)


def _judge_all(pairs: Sequence[_Pair], precision: Precision) -> list[Moved]:
    """One for each stage that has a pair, in the order of the data."""
    found = []
    for stage in STAGES:
        mine = [pair for pair in pairs if stage_of(pair.stage) is stage]
        if not mine:
            continue
        gate = stage.gate(precision)
        compared = [(compare(gate.comparator, pair.a, pair.b, gate.limit), pair) for pair in mine]
        worst, pair = max(compared, key=lambda item: (not item[0].passed, item[0].measured))
        cosines = [c for one in mine if stage.axes[-1] == "number" and (c := _cosine(one)) is not None]
        where = describe(worst, stage.axes, pair.labels)
        measured = (worst.passed, worst.measured, gate.limit, gate.unit)
        found.append(Moved(stage.name, len(mine), *measured, min(cosines, default=None), where))
    return found


def _cosine(pair: _Pair) -> float | None:
    return min((c for name in pair.a if (c := smallest_cosine(pair.a[name], pair.b[name])) is not None), default=None)
