"""The stages from a file and a sentence to a ranking, in order, each with its tolerance and the usual culprit.

A stage is fed with what the reference gives for the stage before it: the first one that moves is the one at fault."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Comparator = Literal["exact", "max_abs", "relative", "ranking"]

# fp32 against fp32 on unit vectors: the sums are the same up to the order of additions, so a few units in the last
# place per layer; 1e-5 leaves a factor of ten above what full-size ViT-B/32 shows (docs/conformance.md).
FP32_UNIT = 1e-5
# Two vectors of unit length that each moved by FP32_UNIT: their cosine may move by twice that.
RANKING_TIE = 2 * FP32_UNIT


@dataclass(frozen=True)
class Stage:
    name: str
    comparator: Comparator
    limit: float
    unit: str
    hint: str


STAGES = (
    Stage("container", "exact", 0, "packets", "another FFmpeg demuxer, or a re-muxed file"),
    Stage("indices", "exact", 0, "frames", "another sampling rule or rounding of times"),
    Stage(
        "rgb", "exact", 0, "frames", "another YUV to RGB conversion (matrix, range, scaler flags), or rotation ignored"
    ),
    Stage("pixels", "exact", 0, "frames", "another resize than Pillow's antialiased bicubic, or another crop"),
    Stage("ids", "exact", 0, "ids", "another text cleaning or tokenizer, or truncation that drops the end token"),
    Stage("text_embedding", "relative", FP32_UNIT, "difference / norm", "a lost causal mask, or another activation"),
    Stage("sampler_step", "relative", FP32_UNIT, "difference / norm", "another schedule, start or time embedding"),
    Stage("aligned", "max_abs", FP32_UNIT, "max |difference|", "reduced precision in the sampler or the L2 norm"),
    Stage("frame_embeddings", "max_abs", FP32_UNIT, "max |difference|", "another normalisation of the pixels"),
    Stage("video_embedding", "max_abs", FP32_UNIT, "max |difference|", "a mask that is ignored, or reduced precision"),
    Stage("ranking", "ranking", RANKING_TIE, "largest swap", "embeddings that moved more than their tolerance"),
)
BY_NAME = {stage.name: stage for stage in STAGES}


def stage_of(name: str) -> Stage:
    """The stage a case belongs to; `sampler_step_3` is a case of `sampler_step`."""
    return BY_NAME["sampler_step" if name.startswith("sampler_step_") else name]
