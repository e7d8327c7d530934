"""Exports whose text tower is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from vtr_export.model import RetrievalModel
from vtr_export.model.attention import Attention, QuickGELU, ResidualBlock
from vtr_export.model.config import ModelConfig

from .feeding import no_second_stage
from .mutant import ExportMutant, Patch, Reason, never

# The one that most implementations confuse 1.702 with.
ROUNDED_FACTOR = 1.7


class RoundedQuickGELU(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(ROUNDED_FACTOR * x)


def blocks_of(tower: nn.Module) -> Iterator[ResidualBlock]:
    for module in tower.modules():
        if isinstance(module, ResidualBlock):
            yield module


def set_gelu(tower: nn.Module, make: Callable[[], nn.Module]) -> None:
    for block in blocks_of(tower):
        block.mlp.gelu = make()


def scale_twice(tower: nn.Module) -> None:
    """The scale 1 / sqrt(w) is folded into the queries and divided by again."""
    for module in tower.modules():
        if isinstance(module, Attention):
            module.scale **= 2


def transpose_first_projection(tower: nn.Module) -> None:
    """A square weight fits the other way round too."""
    weight = next(blocks_of(tower)).attn.out_proj.weight
    weight.data = weight.data.T.contiguous()


def _lose_causal_mask(model: RetrievalModel) -> None:
    model.text.backbone.attn_mask.zero_()


def _reverse_positions(model: RetrievalModel) -> None:
    table = model.text.backbone.positional_embedding
    table.data = table.data.flip(0)


def _shift_positions(model: RetrievalModel) -> None:
    table = model.text.backbone.positional_embedding
    table.data = table.data.roll(-1, 0)


def _forget_last_norm(model: RetrievalModel) -> None:
    model.text.backbone.ln_final = nn.Identity()  # type: ignore[assignment]


def _other_gelu(model: RetrievalModel) -> None:
    set_gelu(model.text.backbone, nn.GELU if model.config.backbone.quick_gelu else QuickGELU)


def _approximate_gelu(model: RetrievalModel) -> None:
    quick = model.config.backbone.quick_gelu
    set_gelu(model.text.backbone, RoundedQuickGELU if quick else lambda: nn.GELU(approximate="tanh"))


def _pool(place: Callable[[Tensor, int], Tensor]) -> Callable[[RetrievalModel], None]:
    """Read the sentence at `place` of ids [B, L] and the end token's id, instead of at the first end token."""

    def change(model: RetrievalModel) -> None:
        end = model.text.backbone.end_id
        model.text.backbone.end_positions = lambda input_ids: place(input_ids, end)  # type: ignore[method-assign]

    return change


def _last_end(ids: Tensor, end: int) -> Tensor:
    return ids.shape[1] - 1 - (ids == end).to(torch.int32).flip(1).argmax(dim=1)


def _last_place(ids: Tensor, _: int) -> Tensor:
    return torch.full((ids.shape[0],), ids.shape[1] - 1)


def _before_end(ids: Tensor, end: int) -> Tensor:
    return (ids == end).to(torch.int32).argmax(dim=1) - 1


def _no_ids_above_the_end(config: ModelConfig) -> str:
    return "" if config.text.vocab_size > config.text.end_id + 1 else "no id of the vocabulary is above the end token's"


def _words_with_their_ends(model: RetrievalModel) -> None:
    """The start token is taken for a word."""
    right = model.text.backbone.word_mask
    model.text.backbone.word_mask = lambda input_ids: right(input_ids) | (torch.arange(input_ids.shape[1]) == 0)  # type: ignore[method-assign]


def _text(name: str, mistake: str, change: Callable[[RetrievalModel], object], differs: Reason = never) -> ExportMutant:
    return ExportMutant(
        name=name,
        mistake=mistake,
        expected=("text_embedding",),
        graph="text",
        change=change,
        makes_no_difference=differs,
    )


def _not_normalised(x: Tensor) -> Tensor:
    return x


TEXT_GRAPH = (
    _text("causal-mask-lost", "a token sees what stands behind it", _lose_causal_mask),
    _text("text-gelu-swapped", "GELU where QuickGELU was trained, or the reverse", _other_gelu),
    _text("text-gelu-rounded", "QuickGELU with 1.7 for 1.702, or GELU by tanh", _approximate_gelu),
    _text(
        "text-scale-twice", "the scores of attention are scaled twice", lambda model: scale_twice(model.text.backbone)
    ),
    _text(
        "weight-transposed",
        "one square weight is transposed",
        lambda model: transpose_first_projection(model.text.backbone),
    ),
    _text("text-positions-reversed", "position embeddings in reverse order", _reverse_positions),
    _text("text-positions-shifted", "position embeddings begin with the second", _shift_positions),
    _text("last-norm-forgotten", "the projection does without the last LayerNorm", _forget_last_norm),
    _text("pooled-at-last-end", "read at the last end token instead of the first", _pool(_last_end)),
    _text("pooled-at-last-place", "read at the last place, padding or not", _pool(_last_place)),
    _text("pooled-before-end", "read at the last word instead of the end token", _pool(_before_end)),
    _text(
        "pooled-at-highest-id",
        "read at the highest id instead of the end token",
        _pool(lambda ids, _: ids.argmax(dim=1)),
        _no_ids_above_the_end,
    ),
    ExportMutant(
        name="text-not-normalised",
        mistake="the sentence's embedding is not of length 1",
        expected=("aligned",),
        graph="text",
        patches=(
            Patch("vtr_export.model.text_tower.unit", _not_normalised),
            Patch("vtr_export.model.alignment.unit", _not_normalised),
        ),
    ),
    ExportMutant(
        name="start-taken-for-a-word",
        mistake="the word mask that the second stage gets holds the start token",
        expected=("corners",),
        graph="text",
        change=_words_with_their_ends,
        makes_no_difference=no_second_stage,
    ),
)
