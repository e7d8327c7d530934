"""Exports whose second stage is wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from vtr_export.model import RetrievalModel
from vtr_export.model.config import ModelConfig
from vtr_export.model.rerank import TokenWise, XPool

from .feeding import no_second_stage
from .mutant import ExportMutant, Reason


def _not_token_wise(config: ModelConfig) -> str:
    return "" if config.rerank.kind == "token-wise" else "the second stage is not token-wise"


def _no_companions(config: ModelConfig) -> str:
    return _not_token_wise(config) or ("" if config.rerank.visual_attention else "frames have no companions")


def _padding_is_zero(config: ModelConfig) -> str:
    return _not_token_wise(config) or ("padding is zero as trained" if config.rerank.padding == "zero" else "")


def _not_x_pool(config: ModelConfig) -> str:
    return "" if config.rerank.kind == "x-pool" else "the second stage is not x-pool"


def _ignore_mask(model: RetrievalModel) -> None:
    """A softmax, or a maximum, over all frames, zeros among them."""
    reranker = model.rerank
    assert reranker is not None
    right = reranker.prepare
    reranker.prepare = lambda frames, frame_mask: right(frames, frame_mask | True)  # type: ignore[method-assign]


def _with(**settings: Any) -> Callable[[RetrievalModel], None]:
    def mutate(model: RetrievalModel) -> None:
        assert isinstance(model.rerank, TokenWise)
        model.rerank.config = model.rerank.config.model_copy(update=settings)

    return mutate


def _swap_key_and_value(model: RetrievalModel) -> None:
    assert isinstance(model.rerank, XPool)
    model.rerank.key, model.rerank.value = model.rerank.value, model.rerank.key


def _scale_twice(model: RetrievalModel) -> None:
    assert isinstance(model.rerank, XPool)
    with torch.no_grad():
        model.rerank.query.weight.mul_(model.rerank.width**-0.5)
        model.rerank.query.bias.mul_(model.rerank.width**-0.5)


def _rerank(name: str, mistake: str, change: Callable[[RetrievalModel], object], differs: Reason) -> ExportMutant:
    return ExportMutant(
        name=name,
        mistake=mistake,
        expected=("rerank",),
        graph="rerank",
        change=change,
        makes_no_difference=differs,
    )


RERANK_GRAPH = (
    _rerank("rerank-mask-ignored", "masked frames take part in the second stage", _ignore_mask, no_second_stage),
    _rerank("padding-wins", "padding may win a maximum with zero", _with(padding="zero"), _padding_is_zero),
    _rerank("no-companions", "the visual attention is left out", _with(visual_attention=False), _no_companions),
    _rerank("key-and-value-swapped", "x-pool's keys and values change places", _swap_key_and_value, _not_x_pool),
    _rerank("temperature-twice", "x-pool's scores are scaled twice", _scale_twice, _not_x_pool),
)
