"""A stage that moved, as a typed error: one class a stage, in the order in which the data flows."""

from __future__ import annotations

from typing import ClassVar

from vtr_runtime.errors import GateError
from vtr_runtime.stages import stage_of

from .results import Result


class StageFailure(GateError):  # noqa: N818
    """A case of `stage` that failed on a host; the message says by how much, where, and what usually causes it."""

    stage: ClassVar[str]

    def __init__(self, result: Result) -> None:
        super().__init__(sentence(result))
        self.result = result


def sentence(result: Result) -> str:
    """A failed result in words."""
    amount = f" moved by {result.measured:.3g} {result.unit}" if result.measured is not None else " failed"
    limit = f" (limit {result.limit:.3g})" if result.limit is not None else ""
    where = f": {result.where}" if result.where else ""
    on = f"{result.host} {result.backend}, case {result.case}"
    return f"{result.stage}{amount}{limit} on {on}{where}; usual cause: {result.hint}"


class ContainerFailure(StageFailure):
    """The packets of a file are not those that the reference sees."""

    stage = "container"


class IndicesFailure(StageFailure):
    """Other frames were taken."""

    stage = "indices"


class RgbFailure(StageFailure):
    """The taken frames have other colours, or stand another way up."""

    stage = "rgb"


class PixelsFailure(StageFailure):
    """The frames were resized or cropped otherwise."""

    stage = "pixels"


class IdsFailure(StageFailure):
    """A caption has other tokens."""

    stage = "ids"


class EngineFailure(StageFailure):
    """A graph does not build, or the bundle's engine is not one of its graphs."""

    stage = "engine"


class TextEmbeddingFailure(StageFailure):
    """The text tower gives another vector, before the sampler."""

    stage = "text_embedding"


class SamplerStepFailure(StageFailure):
    """A step of the alignment sampler gives another vector."""

    stage = "sampler_step"


class AlignedFailure(StageFailure):
    """A caption's embedding is another one."""

    stage = "aligned"


class FrameEmbeddingsFailure(StageFailure):
    """A frame's embedding is another one."""

    stage = "frame_embeddings"


class VideoEmbeddingFailure(StageFailure):
    """A video's embedding is another one."""

    stage = "video_embedding"


class RerankFailure(StageFailure):
    """The second stage scores otherwise."""

    stage = "rerank"


class CornersFailure(StageFailure):
    """A corner of the profile (batch, mask, length) goes wrong."""

    stage = "corners"


class InvarianceFailure(StageFailure):
    """Something counts that must not matter: batch, slot, order, padding, what is masked."""

    stage = "invariance"


class RankingFailure(StageFailure):
    """Videos are ranked otherwise, by more than a tie."""

    stage = "ranking"


class RetrievalFailure(StageFailure):
    """Other videos are found, by more than the reference's own noise."""

    stage = "retrieval"


BY_STAGE: dict[str, type[StageFailure]] = {kind.stage: kind for kind in StageFailure.__subclasses__()}


def failure_of(result: Result) -> StageFailure:
    """The typed error of a failed result."""
    return BY_STAGE[stage_of(result.stage).name](result)
