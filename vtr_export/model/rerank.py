"""The second stage: a score for each pair of a text and a video, from its stored frame embeddings.

TokenWise is DMAE's refined similarity (arXiv 2309.11082), XPool the text-conditioned pooling that the DITS paper starts
from (arXiv 2203.15086). Rows are texts, columns videos; a score depends on its own pair alone."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from .attention import MASKED, keep, unit
from .config import ModelConfig, RerankConfig

CHUNK = 2**24
"""Numbers in the largest tensor over pairs that is held at once; more texts are scored in several passes."""


class Reranker(nn.Module, ABC):
    """What both kinds share: the signature, and passes over the texts that bound memory."""

    def forward(self, text: Tensor, words: Tensor, word_weights: Tensor, frames: Tensor, frame_mask: Tensor) -> Tensor:
        """Scores [A, B] of A texts with B videos.

        text [A, D]: aligned embeddings; words [A, L, D] and frames [B, N, D]: embeddings of words and frames, whose
        hidden ones change nothing; all of norm 1. word_weights float [A, L]: 0 hides a word, 2 marks one that matters,
        1 is any other. frame_mask bool [B, N]. A text has at least one word, a video at least one frame."""
        videos = self.prepare(keep(frames, frame_mask), frame_mask)
        if torch.compiler.is_exporting():
            return self.score(text, words, word_weights, *videos)
        step = max(1, CHUNK // self.numbers_per_text(words, frames))
        passes = [slice(start, start + step) for start in range(0, len(text), step)]
        return torch.cat([self.score(text[rows], words[rows], word_weights[rows], *videos) for rows in passes])

    @abstractmethod
    def numbers_per_text(self, words: Tensor, frames: Tensor) -> int:
        """In the largest tensor over pairs."""

    @abstractmethod
    def prepare(self, frames: Tensor, frame_mask: Tensor) -> tuple[Tensor, ...]:
        """What `score` needs of the videos, independent of the texts. The frames are zero where masked."""

    @abstractmethod
    def score(self, text: Tensor, words: Tensor, word_weights: Tensor, *videos: Tensor) -> Tensor:
        """Scores [A, B] with the videos that `prepare` made."""


class TokenWise(Reranker):
    """With M_ij = <x_i, f_j> over a text's tokens and a video's frames,

        s = (sum_i alpha_i m_i + sum_j beta_j max_i M_ij) / 2

    m_i is max_j M_ij; with visual attention M_ij1 + factor G_j1j2 M_ij2, where j1 is the token's best frame, G the
    frames' similarity with a zero diagonal and j2 the frame most similar to j1. The tokens are the sentence, its words,
    or both, each with a score of its own and their mean."""

    def __init__(self, width: int, config: RerankConfig) -> None:
        super().__init__()
        self.config = config
        # A softmax does not see a bias. Over the one token of a sentence it is 1, whatever the head says.
        learned = config.interaction == "wti"
        self.word_head = nn.Linear(width, 1, bias=False) if learned and config.tokens != "sentence" else None
        self.frame_head = nn.Linear(width, 1, bias=False) if learned else None

    def numbers_per_text(self, words: Tensor, frames: Tensor) -> int:
        tokens = 1 if self.config.tokens == "sentence" else words.shape[1]
        return tokens * frames.shape[0] * frames.shape[1]

    def prepare(self, frames: Tensor, frame_mask: Tensor) -> tuple[Tensor, ...]:
        refined = self._with_companions(frames) if self.config.visual_attention else frames
        beta = _importance(self.frame_head, frames, frame_mask.to(frames.dtype))
        return frames, refined, beta, frame_mask

    def score(self, text: Tensor, words: Tensor, word_weights: Tensor, *videos: Tensor) -> Tensor:
        scores = []
        if self.config.tokens != "words":
            sure = torch.ones_like(text[:, :1])
            scores.append(self._interaction(text.unsqueeze(1), sure, sure > 0, *videos))
        if self.config.tokens != "sentence":
            shown = word_weights > 0
            weights = word_weights if self.config.textual_attention else shown
            words = keep(words, shown)
            alpha = _importance(self.word_head, words, weights.to(words.dtype))
            scores.append(self._interaction(words, alpha, shown, *videos))
        return torch.stack(scores).mean(dim=0)

    def _interaction(
        self,
        tokens: Tensor,
        alpha: Tensor,
        shown: Tensor,
        frames: Tensor,
        refined: Tensor,
        beta: Tensor,
        frame_mask: Tensor,
    ) -> Tensor:
        """Tokens [A, L, D], alpha and shown [A, L]; frames and refined frames [B, N, D], beta and mask [B, N]."""
        similarity = _products(tokens, frames)
        per_token = per_frame = similarity
        if self.config.padding == "hidden":
            per_token = similarity.masked_fill(~frame_mask, MASKED)
            per_frame = similarity.masked_fill(~shown[:, :, None, None], MASKED)
        matched, best = per_token.max(dim=3, keepdim=True)
        if self.config.visual_attention:
            matched = _products(tokens, refined).gather(3, best)
        to_video = (alpha.unsqueeze(2) * matched.squeeze(3)).sum(dim=1)
        to_text = (beta * per_frame.amax(dim=1)).sum(dim=2)
        return (to_video + to_text) / 2.0

    def _with_companions(self, frames: Tensor) -> Tensor:
        """f_j + factor G_jk f_k with k the frame most similar to j: visual attention is linear in the frames, so that
        a token's refined score is its product with this. A frame whose likeness to all others is negative, or which is
        alone, meets the zero on the diagonal and stays as it is."""
        itself = torch.eye(frames.shape[1], dtype=torch.bool, device=frames.device)
        likeness, place = (frames @ frames.transpose(1, 2)).masked_fill(itself, 0.0).max(dim=2, keepdim=True)
        companion = frames.gather(1, place.expand(-1, -1, frames.shape[2]))
        return frames + self.config.visual_factor * likeness * companion


class XPool(Reranker):
    """cos(t, z) of the text and the video pooled for it: one attention head with the text as its query,

    r = LN_2(softmax(Q K^T / sqrt(D)) V W_o),  z = LN_3(r + Dropout(FC r)),  Q, K, V = LN_1(t) W_q, LN_1(F) W_k and W_v

    Every linear layer begins as the identity."""

    def __init__(self, width: int, config: RerankConfig) -> None:
        super().__init__()
        self.width = width
        self.norm_1, self.norm_2, self.norm_3 = (nn.LayerNorm(width) for _ in range(3))
        self.query, self.key, self.value, self.out, self.last = (_identity(width) for _ in range(5))
        self.dropout = nn.Dropout(config.dropout)

    def numbers_per_text(self, words: Tensor, frames: Tensor) -> int:  # noqa: ARG002
        return frames.shape[0] * max(frames.shape[1:])

    def prepare(self, frames: Tensor, frame_mask: Tensor) -> tuple[Tensor, ...]:
        normed = self.norm_1(frames)
        hidden = (1.0 - frame_mask.to(frames.dtype)).unsqueeze(2) * MASKED
        return self.key(normed), self.value(normed), hidden

    def score(self, text: Tensor, words: Tensor, word_weights: Tensor, *videos: Tensor) -> Tensor:  # noqa: ARG002
        keys, values, hidden = videos
        query = self.query(self.norm_1(text)) * (1.0 / math.sqrt(self.width))
        attention = (keys @ query.T + hidden).softmax(dim=1)  # [B, N, A]
        pooled = self.norm_2(self.out(attention.transpose(1, 2) @ values))  # [B, A, D]
        pooled = self.norm_3(pooled + self.dropout(self.last(pooled)))
        return (unit(pooled) * unit(text)).sum(dim=2).T


def build_reranker(config: ModelConfig) -> Reranker | None:
    """The second stage of a model, or None where it has none."""
    rerank, width = config.rerank, config.backbone.embed_dim
    if rerank.kind == "token-wise":
        return TokenWise(width, rerank)
    return XPool(width, rerank) if rerank.kind == "x-pool" else None


def _products(tokens: Tensor, frames: Tensor) -> Tensor:
    """[A, L, D], [B, N, D] -> [A, L, B, N]."""
    products: Tensor = torch.tensordot(tokens, frames, dims=([2], [2]))
    return products


def _importance(head: nn.Linear | None, tokens: Tensor, weights: Tensor) -> Tensor:
    """alpha or beta [B, L] of tokens [B, L, D] with weights [B, L]: the weights over their sum, or the head's softmax
    over the tokens of positive weight, times the weights as they are."""
    if head is None:
        return weights / weights.sum(dim=1, keepdim=True)
    hidden = (weights == 0).to(tokens.dtype) * MASKED
    scores: Tensor = head(tokens).squeeze(2) + hidden
    return scores.softmax(dim=1) * weights


def _identity(width: int) -> nn.Linear:
    layer = nn.Linear(width, width)
    nn.init.eye_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
