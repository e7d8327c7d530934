"""The stages from a file and a sentence to a ranking, in order, each with its limit by precision and the usual culprit.

A stage is fed with what the reference gives for the stage before it: the first one that moves is the one at fault.
Every limit of the suite stands in this file, with its reason."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from .precision import COSINE_LOSS, PRECISIONS, Precision

Comparator = Literal["exact", "max_abs", "relative", "chord", "scale", "cosine", "finite", "ranking", "loss"]

# fp32 against fp32 on unit vectors: the sums are the same up to the order of additions, so a few units in the last
# place per layer; 1e-5 leaves a factor of ten above what full-size ViT-B/32 shows (docs/conformance.md).
FP32_UNIT = 1e-5
# Two vectors of unit length that each moved by FP32_UNIT: their cosine may move by twice that.
RANKING_TIE = 2 * FP32_UNIT
# How far a unit vector may move: in reduced precision the chord sqrt(2 (1 - cosine)) of what COSINE_LOSS allows.
MOVED: Mapping[Precision, float] = {"fp32": FP32_UNIT, **{p: math.sqrt(2 * c) for p, c in COSINE_LOSS.items()}}
# What must not matter (batch, slot, order, padding, what is masked) may change the order of additions and no more; in
# reduced precision one such change can round a value the other way.
INVARIANT_FP32, INVARIANT_REDUCED = 1e-6, 2e-3
# int8 may lose this much of R@1, in points.
INT8_RECALL_LOSS = 1.0


@dataclass(frozen=True)
class Gate:
    """How a stage is judged: passed where what `comparator` measures is at most `limit`, in `unit`."""

    comparator: Comparator
    limit: float
    unit: str


@dataclass(frozen=True)
class Stage:
    """`hint` is what usually moves it; `axes` are what the axes of its outputs stand for, as far as they are told."""

    name: str
    gates: Mapping[Precision, Gate]
    hint: str
    axes: tuple[str, ...]

    def gate(self, precision: Precision) -> Gate:
        return self.gates[precision]


FINITE = Gate("finite", 0, "values not finite")
# The same input twice, on one host: nothing that it does may depend on chance.
SAME_BITS = Gate("exact", 0, "numbers that differ")
# An embedding's length, where there is nothing to compare it with.
UNIT_LENGTH: Mapping[Precision, Gate] = {
    p: Gate("max_abs", MOVED.get(p, MOVED["fp16"]), "|norm - 1|") for p in PRECISIONS
}


def _exact(unit: str) -> Mapping[Precision, Gate]:
    return dict.fromkeys(PRECISIONS, Gate("exact", 0, unit))


def _within(comparator: Comparator, unit: str, *, moves: int = 1) -> dict[Precision, Gate]:
    """What follows from `moves` unit vectors that each moved by MOVED; of int8 only that it is finite."""
    return {"int8": FINITE, **{p: Gate(comparator, moves * moved, unit) for p, moved in MOVED.items()}}


_EMBEDDING: Mapping[Precision, Gate] = {
    **_within("max_abs", "max |difference|"),
    **{p: Gate("cosine", limit, "1 - cosine") for p, limit in COSINE_LOSS.items()},
}
# Vectors that are not of unit length, before the last L2 norm: as far off, over their norm, as behind it.
_INNER: Mapping[Precision, Gate] = {
    **_within("chord", "distance / norm"),
    "fp32": Gate("relative", FP32_UNIT, "difference / norm"),
}
_INVARIANT: Mapping[Precision, Gate] = {
    p: Gate("max_abs", INVARIANT_FP32 if p == "fp32" else INVARIANT_REDUCED, "max |difference|") for p in PRECISIONS
}
_FOUND: Mapping[Precision, Gate] = {
    **dict.fromkeys(PRECISIONS, Gate("exact", 0, "queries that changed outside the noise")),
    "int8": Gate("loss", INT8_RECALL_LOSS, "points of R@1 lost"),
}

STAGES = (
    Stage("container", _exact("packets"), "another FFmpeg demuxer, or a re-muxed file", ("packet",)),
    Stage("indices", _exact("frames"), "another sampling rule or rounding of times", ("frame",)),
    Stage(
        "rgb",
        _exact("frames"),
        "another YUV to RGB conversion (matrix, range, scaler flags), or rotation ignored",
        ("frame",),
    ),
    Stage("pixels", _exact("frames"), "another resize than Pillow's antialiased bicubic, or another crop", ("frame",)),
    Stage(
        "ids",
        _exact("ids"),
        "another text cleaning or tokenizer, or truncation that drops the end token",
        ("caption", "token"),
    ),
    Stage(
        "engine",
        _exact("graphs"),
        "an operator or a type that the library has no kernel for, or an engine of other graphs",
        (),
    ),
    Stage("text_embedding", _INNER, "a lost causal mask, or another activation", ("caption", "number")),
    Stage("sampler_step", _INNER, "another schedule, start or time embedding", ("row", "number")),
    Stage("aligned", _EMBEDDING, "reduced precision in the sampler or the L2 norm", ("caption", "number")),
    Stage(
        "frame_embeddings",
        _EMBEDDING,
        "another normalisation of the pixels, another activation, or a frame mask that is ignored",
        ("clip", "frame", "number"),
    ),
    Stage(
        "video_embedding",
        _EMBEDDING,
        "another setting of the temporal head (differences, subsets, alpha), or reduced precision",
        ("clip", "number"),
    ),
    Stage(
        "rerank",
        _within("scale", "difference / largest score"),
        "words or frames that are masked and still count",
        ("candidate",),
    ),
    Stage(
        "corners",
        _EMBEDDING,
        "an axis fixed at tracing, an end of text found wrongly, or a mask that overflows",
        ("row", "number"),
    ),
    Stage(
        "invariance",
        _INVARIANT,
        "rows that see each other, padding that counts, or kernels that differ by batch",
        ("row", "number"),
    ),
    Stage(
        "ranking",
        _within("ranking", "largest swap", moves=2),
        "embeddings that moved more than their tolerance",
        ("caption", "clip"),
    ),
    Stage("retrieval", _FOUND, "a clip or caption worse off than the rest, or a layer that needs fp32", ("query",)),
)
BY_NAME = {stage.name: stage for stage in STAGES}
PLACES = {stage.name: place for place, stage in enumerate(STAGES)}
# What a host can answer without running a graph.
BEFORE_THE_GRAPHS = frozenset({"container", "indices", "rgb", "pixels", "ids"})
# What says nothing of an embedding: an engine that builds has not run.
NO_PROOF = BEFORE_THE_GRAPHS | {"engine"}
# What no golden vector is of: inputs are drawn, built from or read from elsewhere.
NOT_GOLDEN = frozenset({"engine", "corners", "invariance", "retrieval"})


def stage_of(name: str) -> Stage:
    """The stage a case belongs to; `sampler_step_3` is a case of `sampler_step`."""
    return BY_NAME[_family(name)]


def place_in_flow(stage: str, case: str) -> float:
    """Where a case stands between a file or a sentence and the ranking: what moved first is what came first.

    A sampler behind the video tower, whose cases are clips, walks between the frames' embeddings and the clip's."""
    name = stage_of(stage).name
    behind_video = name == "sampler_step" and case.endswith("/clips")
    return PLACES["frame_embeddings"] + 0.5 if behind_video else PLACES[name]


def is_known(name: str) -> bool:
    return _family(name) in BY_NAME


def _family(name: str) -> str:
    return "sampler_step" if name.startswith("sampler_step_") else name
