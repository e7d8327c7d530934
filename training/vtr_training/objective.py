"""The losses of a recipe, put together, with what they train beside the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from vtr_export.model.config import ModelConfig
from vtr_export.model.diffusion import GapDiffusion
from vtr_export.model.retrieval import RetrievalModel
from vtr_export.model.text_tower import TextFeatures

from .losses import bsl, hard_negatives, info_nce, neg_nce
from .recipe import LossSettings
from .tpm import TpmLoss


@dataclass(frozen=True)
class BatchFeatures:
    """What the towers make of B matched pairs: row i of one modality belongs to row i of the other."""

    video: Tensor  # [B, D] norm 1
    frames: Tensor  # [B, T, D] norm 1, zero where masked
    frame_mask: Tensor  # bool [B, T]
    text: TextFeatures  # of B sentences of L tokens
    word_weights: Tensor  # float [B, L] zero where masked
    same: Tensor  # bool [B, B] pairs that hold the same video or the same caption


class Objective(nn.Module):
    """Loss terms by name, each with its weight. Its parameters serve training alone and are in no checkpoint."""

    def __init__(self, settings: LossSettings, config: ModelConfig) -> None:
        super().__init__()
        self.settings = settings
        self.tpm: TpmLoss | None = None
        if settings.tpm.weight:
            self.tpm = TpmLoss(
                config.backbone.embed_dim,
                tau=settings.tpm.tau,
                margin=settings.tpm.delta,
                triplets=settings.tpm.triplets,
                release=settings.tpm.release,
                frames=config.frames.count,
                words=config.text.context_length,
            )

    def forward(self, model: RetrievalModel, given: BatchFeatures) -> dict[str, Tensor]:
        """Every term of the recipe but the gap's pre-training."""
        settings, text = self.settings, given.text.embedding
        first = text @ given.video.T
        refined = None if model.rerank is None else rerank_scores(model, given)
        scale = model.logit_scale.exp()
        terms = {"contrastive": self._contrast(settings.contrastive, first, refined, scale, given.same)}
        if refined is not None:
            refined_loss = self._contrast(settings.rerank, refined, refined, scale, given.same)
            terms["rerank"] = settings.rerank_weight * refined_loss
        if settings.bsl.weight:
            options = settings.bsl.model_dump(exclude={"weight"})
            terms["bsl"] = settings.bsl.weight * bsl(given.video, text, given.same, **options)
        if self.tpm is not None:
            words, mask = given.text.words, given.text.word_mask
            terms["tpm"] = settings.tpm.weight * self.tpm(text, words, mask, given.frames, given.frame_mask)
        return terms

    def _contrast(self, kind: str, scores: Tensor, refined: Tensor | None, scale: Tensor, same: Tensor) -> Tensor:
        if kind == "cross-entropy":
            return info_nce(scale * scores, same)
        chosen = self.settings.negnce
        source = refined if chosen.hard_from == "rerank" and refined is not None else scores
        hard = hard_negatives(source, same, chosen.margin)
        return neg_nce(scores, chosen.scale or scale, hard, same, positive=chosen.positive, negative=chosen.negative)


def rerank_scores(model: RetrievalModel, given: BatchFeatures) -> Tensor:
    """The second stage's scores [B, B], rows texts."""
    assert model.rerank is not None
    words, weights = given.text.words, given.word_weights
    scores: Tensor = model.rerank(given.text.embedding, words, weights, given.frames, given.frame_mask)
    return scores


def gap_loss(model: RetrievalModel, given: BatchFeatures, kind: Literal["l1", "l2"]) -> dict[str, Tensor]:
    """Stage A of the diffusion control (DITS paper, equation 6): the network learns the gap, nothing else moves."""
    head = model.text.alignment
    assert isinstance(head, GapDiffusion)  # the recipe has checked it
    return {"gap": head.loss(given.text.raw.detach(), given.video.detach(), kind)}


def total(terms: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(terms.values())).sum()
