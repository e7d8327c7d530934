"""Exports whose image tower or temporal head is wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from vtr_export.graph.prune import PixelVision
from vtr_export.model import RetrievalModel
from vtr_export.model.attention import QuickGELU, keep
from vtr_export.model.clip4clip import FrameTransformer
from vtr_export.model.config import ModelConfig
from vtr_export.model.mstdt import DifferenceTransformer

from .mutant import ExportMutant, Patch, Reason, never
from .text_graph import scale_twice, set_gelu

# Less than an embedding may differ from PyTorch's, more than it may differ from itself.
SLIGHT = 6e-6


def _no_blocks(config: ModelConfig) -> str:
    return "" if isinstance(config.backbone.vision.layers, int) else "a ModifiedResNet has no such part"


def _no_mstdt(config: ModelConfig) -> str:
    return "" if config.temporal.kind == "mstdt" else "the temporal head is not mstdt"


def _no_frame_transformer(config: ModelConfig) -> str:
    there = config.temporal.kind in ("mstdt", "transformer")
    return "" if there else "the temporal head has no positions"


def _other_difference(kind: str) -> Reason:
    def reason(config: ModelConfig) -> str:
        same = "the head has no differences or just these"
        return _no_mstdt(config) or (same if config.temporal.difference in ("none", kind) else "")

    return reason


def _alpha_is_half(config: ModelConfig) -> str:
    half = config.temporal.alpha == 0.5 and not config.temporal.alpha_learned
    return _no_mstdt(config) or ("alpha is 0.5" if half else "")


def _already_overlapping(config: ModelConfig) -> str:
    return _no_mstdt(config) or ("subsets begin one frame apart as it is" if config.temporal.stride == 1 else "")


def _behind_the_video(config: ModelConfig) -> str:
    return "the sampler behind the video tower makes more of it" if config.alignment.of_video else ""


def _swap_mean_and_std(model: RetrievalModel) -> None:
    mean, scale = model.video.mean.clone(), model.video.scale.clone()
    model.video.mean.copy_(1.0 / scale)
    model.video.scale.copy_(1.0 / mean)


def _reverse_channels(model: RetrievalModel) -> None:
    """The constants stand in the order blue, green, red."""
    model.video.mean.copy_(model.video.mean.flip(1).clone())
    model.video.scale.copy_(model.video.scale.flip(1).clone())


def _other_gelu(model: RetrievalModel) -> None:
    set_gelu(model.video.backbone, nn.GELU if model.config.backbone.quick_gelu else QuickGELU)


def _pooled_at_last_patch(self: PixelVision, pixels: Tensor) -> Tensor:
    """PixelVision.forward, but for the token that is read."""
    tokens = self.embed(pixels)
    *blocks, last = self.transformer.resblocks
    for block in blocks:
        tokens = block(tokens)
    return self.project(last(tokens, lambda x: x[:, -1]))


class EveryFrameSeen(nn.Module):
    """A temporal head that does not look at the mask."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, features: Tensor, frame_mask: Tensor) -> tuple[Tensor, Tensor]:
        found: tuple[Tensor, Tensor] = self.head(features, frame_mask | True)
        return found


class DependsOnSlot(nn.Module):
    """A temporal head that gives all rows but the first a slightly other embedding."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, features: Tensor, frame_mask: Tensor) -> tuple[Tensor, Tensor]:
        video, frames = self.head(features, frame_mask)
        later = (torch.arange(video.shape[0]) > 0).to(video.dtype).unsqueeze(1)
        return video + SLIGHT * later, frames


def _ignore_mask(model: RetrievalModel) -> None:
    model.video.temporal = EveryFrameSeen(model.video.temporal)


def _depend_on_slot(model: RetrievalModel) -> None:
    model.video.temporal = DependsOnSlot(model.video.temporal)


def _frame_transformer(model: RetrievalModel) -> FrameTransformer:
    return next(module for module in model.video.temporal.modules() if isinstance(module, FrameTransformer))


def _reverse_frame_positions(model: RetrievalModel) -> None:
    table, count = _frame_transformer(model).positional_embedding, model.config.frames.count
    table.data[:count] = table.data[:count].flip(0)


def _lose_residual(model: RetrievalModel) -> None:
    head = _frame_transformer(model)
    right = head.mix
    head.mix = lambda features, frame_mask: right(features, frame_mask) - keep(features, frame_mask)  # type: ignore[method-assign]


def _head_with(**settings: Any) -> Callable[[RetrievalModel], None]:
    """The difference transformer with other settings."""

    def mutate(model: RetrievalModel) -> None:
        head = model.video.temporal
        assert isinstance(head, DifferenceTransformer)
        head.config = head.config.model_copy(update=settings)

    return mutate


def _swap_alpha(model: RetrievalModel) -> None:
    head = model.video.temporal
    assert isinstance(head, DifferenceTransformer)
    if head.config.alpha_learned:
        head.alpha_logit.data.neg_()
    else:
        _head_with(alpha=1.0 - head.config.alpha)(model)


def _use_one_scale(model: RetrievalModel) -> None:
    head = model.video.temporal
    assert isinstance(head, DifferenceTransformer)
    head.short = head.short[:1]
    _head_with(scales=head.config.scales[:1])(model)


def _one_scale(config: ModelConfig) -> str:
    return _no_mstdt(config) or ("" if len(config.temporal.scales) > 1 else "the head has one scale")


def _video(
    name: str,
    mistake: str,
    change: Callable[[RetrievalModel], object],
    stage: str = "frame_embeddings",
    differs: Reason = never,
) -> ExportMutant:
    return ExportMutant(
        name=name, mistake=mistake, expected=(stage,), graph="video", change=change, makes_no_difference=differs
    )


def _mstdt(
    name: str, mistake: str, change: Callable[[RetrievalModel], object], differs: Reason = _no_mstdt
) -> ExportMutant:
    return _video(name, mistake, change, "video_embedding", differs)


VIDEO_GRAPH = (
    _video("mean-and-std-swapped", "mean and deviation of the pixels change places", _swap_mean_and_std),
    _video("mean-and-std-reversed", "mean and deviation stand in the order of BGR", _reverse_channels),
    _video("image-gelu-swapped", "GELU where QuickGELU was trained, or the reverse", _other_gelu, differs=_no_blocks),
    _video(
        "image-scale-twice",
        "the scores of attention are scaled twice",
        lambda model: scale_twice(model.video.backbone),
        differs=_no_blocks,
    ),
    ExportMutant(
        name="pooled-at-last-patch",
        mistake="the last patch is read instead of the class token",
        expected=("frame_embeddings",),
        graph="video",
        patches=(Patch("vtr_export.graph.prune.PixelVision.forward", _pooled_at_last_patch),),
        makes_no_difference=_no_blocks,
    ),
    _video("frame-mask-ignored", "padding counts as frames", _ignore_mask),
    _video(
        "frame-positions-reversed",
        "frame positions in reverse order",
        _reverse_frame_positions,
        differs=_no_frame_transformer,
    ),
    _video(
        "frame-residual-lost",
        "the frames are not added to what the blocks make of them",
        _lose_residual,
        differs=_no_frame_transformer,
    ),
    _mstdt(
        "difference-across-subsets",
        "the first difference of a subset is taken from the frame before it",
        _head_with(difference="cross-boundary"),
        _other_difference("cross-boundary"),
    ),
    _mstdt(
        "difference-shifted",
        "differences end with zero instead of beginning with the guide frame",
        _head_with(difference="zero-last"),
        _other_difference("zero-last"),
    ),
    _mstdt("subsets-overlap", "subsets slide by one frame", _head_with(stride=1), _already_overlapping),
    _mstdt("one-scale-only", "the first scale stands for all", _use_one_scale, _one_scale),
    _mstdt("temporal-alpha-swapped", "short and long term change weights", _swap_alpha, _alpha_is_half),
    _video(
        "slot-matters", f"rows behind the first are {SLIGHT:g} off", _depend_on_slot, "invariance", _behind_the_video
    ),
)
