"""Triplet partial margin contrastive learning (TPM-CL) of DMAE (arXiv 2309.11082, equations from its released code).

A predictor per modality says how important each of its tokens is; the most important ones are masked away, and a
matched pair must score higher with them than without, by a margin."""

from __future__ import annotations

from collections.abc import Collection

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vtr_export.model.attention import keep, unit

SPARE = 1e-6
"""Least unimportance of a frame: the only frame of a video has importance 1 and is still a frame."""


class TokenImportance(nn.Module):
    """p [B, K], the importance of key tokens beside query tokens: positive, of sum 1, zero where masked.

    Each key is joined with the mean of the queries: LayerNorm over 2 D, two linear layers without bias, sigmoid, and
    division by the sum. The released network (ReleasedTokenImportance) instead fixes the numbers of tokens."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.LayerNorm(2 * width), *_scorer(width))

    def forward(self, queries: Tensor, query_mask: Tensor, keys: Tensor, key_mask: Tensor) -> Tensor:
        """queries [B, Q, D], keys [B, K, D], masks bool [B, Q] and [B, K]."""
        weights = query_mask.to(queries.dtype).unsqueeze(2)
        query = (keep(queries, query_mask) * weights).sum(dim=1, keepdim=True) / weights.sum(dim=1, keepdim=True)
        joined = torch.cat([query.expand_as(keys), keep(keys, key_mask)], dim=2)
        scores = self.network(joined).squeeze(2) * key_mask
        return scores / scores.sum(dim=1, keepdim=True)  # type: ignore[no-any-return]


class ReleasedTokenImportance(nn.Module):
    """The same as released: queries become as many as the keys by one linear map along the token axis, LayerNorm spans
    all tokens, and padding counts as tokens."""

    def __init__(self, width: int, *, queries: int, keys: int) -> None:
        super().__init__()
        self.mix = nn.Linear(queries, keys, bias=False)
        self.network = nn.Sequential(nn.LayerNorm([keys, 2 * width]), *_scorer(width))

    def forward(self, queries: Tensor, query_mask: Tensor, keys: Tensor, key_mask: Tensor) -> Tensor:  # noqa: ARG002
        """queries [B, Q, D], keys [B, K, D], with the Q and K of construction; the masks are not looked at."""
        mixed = self.mix(queries.transpose(1, 2)).transpose(1, 2)
        scores = self.network(torch.cat([mixed, keys], dim=2)).squeeze(2)
        return scores / scores.sum(dim=1, keepdim=True)  # type: ignore[no-any-return]


def mask_informative(importance: Tensor, mask: Tensor, tau: float) -> Tensor:
    """bool [B, K]: the tokens that adaptive masking keeps.

    importance [B, K] sums to 1 over the tokens of mask, bool [B, K]. In descending order tokens are dropped while their
    cumulative importance is below tau; the one that reaches tau is kept, and so is always the least important one."""
    ranked, order = importance.detach().masked_fill(~mask, -1.0).sort(dim=1, descending=True)
    last = mask.sum(dim=1, keepdim=True) - 1
    dropped = (ranked.cumsum(dim=1) < tau) & (torch.arange(mask.shape[1], device=mask.device) < last)
    return mask & ~torch.zeros_like(mask).scatter(1, order, dropped)


class TpmLoss(nn.Module):
    """The sum of the chosen triplets, each mean_i max(0, margin - s_pos + s_neg) over matched pairs:

    1: s(t, V) > s(t, V'),   2: s(t_g, V) > s(t_g, V'),   3: s(t_g, V) > s(t_g', V)

    t is the sentence, t_g its words' mean by importance, V' and t_g' what masking leaves of the frames and of t_g;
    s(x, V) = (max_j <x, f_j> + mean_j <x, f_j>) / 2. All of t, t_g and t_g' have norm 1; V' loses frames from maximum
    and mean, and its mean weighs frame j by 1 - p_j, so that the frames' importance learns too.

    With `release`, as in the released code: masked tokens become zeros that stay in maximum and mean, t_g' keeps its
    shorter norm, the frames' importance gets no gradient, and words and frames are padded or cut to fixed counts."""

    def __init__(
        self,
        width: int,
        *,
        tau: float = 0.6,
        margin: float = 0.1,
        triplets: Collection[int] = (1, 2, 3),
        release: bool = False,
        frames: int,
        words: int,
    ) -> None:
        """`frames` and `words` are the fixed counts of the released predictors; the others take any number."""
        super().__init__()
        self.tau, self.margin, self.triplets, self.release = tau, margin, frozenset(triplets), release
        self.frames, self.words = frames, words
        self.frame_importance: nn.Module
        self.word_importance: nn.Module
        if release:
            self.frame_importance = ReleasedTokenImportance(width, queries=1, keys=frames)
            self.word_importance = ReleasedTokenImportance(width, queries=frames, keys=words)
        else:
            self.frame_importance, self.word_importance = TokenImportance(width), TokenImportance(width)

    def forward(self, text: Tensor, words: Tensor, word_mask: Tensor, frames: Tensor, frame_mask: Tensor) -> Tensor:
        """A scalar. text [B, D], words [B, L, D], frames [B, N, D], of norm 1; masks bool [B, L] and [B, N], at least
        one true in a row. Row i of the text belongs to row i of the frames."""
        words, frames = keep(words, word_mask), keep(frames, frame_mask)
        if self.release:
            words, word_mask = _fixed(words, self.words), _fixed(word_mask, self.words)
            frames, frame_mask = _fixed(frames, self.frames), _fixed(frame_mask, self.frames)
        sentence, one = text.unsqueeze(1), torch.ones_like(text[:, :1], dtype=torch.bool)
        of_frames = self.frame_importance(sentence, one, frames, frame_mask)
        of_words = self.word_importance(frames, frame_mask, words, word_mask)

        weighted = of_words.unsqueeze(2) * words
        kept_words = mask_informative(of_words, self._maskable(word_mask), self.tau)
        whole, partial = unit(weighted.sum(dim=1)), keep(weighted, kept_words).sum(dim=1)
        partial = partial if self.release else unit(partial)
        kept_frames = mask_informative(of_frames, self._maskable(frame_mask), self.tau)

        texts = torch.stack([text, whole, partial], dim=1)  # t, t_g, t_g'
        products = texts @ frames.transpose(1, 2)  # [B, 3, N]
        full = self._full(products, frame_mask)
        masked = self._masked(products, of_frames, kept_frames, frame_mask)
        losses = {
            1: self._hinge(full[:, 0], masked[:, 0]),
            2: self._hinge(full[:, 1], masked[:, 1]),
            3: self._hinge(full[:, 1], full[:, 2]),
        }
        return torch.stack([losses[number] for number in sorted(self.triplets)]).sum()

    def _maskable(self, mask: Tensor) -> Tensor:
        return torch.ones_like(mask) if self.release else mask

    def _full(self, products: Tensor, frame_mask: Tensor) -> Tensor:
        """s(x, V) [B, 3] of products [B, 3, N]."""
        mask = frame_mask.unsqueeze(1)
        seen = products if self.release else products.masked_fill(~mask, -torch.inf)
        mean = (products * mask).sum(dim=2) / mask.sum(dim=2)
        return (seen.amax(dim=2) + mean) / 2

    def _masked(self, products: Tensor, importance: Tensor, kept: Tensor, frame_mask: Tensor) -> Tensor:
        """s(x, V') [B, 3]."""
        left = kept.unsqueeze(1)
        if self.release:
            return self._full(products * left, frame_mask)
        rest = (1.0 - importance).clamp_min(SPARE) * kept
        mean = (products * (rest / rest.sum(dim=1, keepdim=True)).unsqueeze(1)).sum(dim=2)
        return (products.masked_fill(~left, -torch.inf).amax(dim=2) + mean) / 2

    def _hinge(self, higher: Tensor, lower: Tensor) -> Tensor:
        return (self.margin - higher + lower).clamp_min(0.0).mean()


def _scorer(width: int) -> tuple[nn.Module, ...]:
    """2 D -> a number in (0, 1)."""
    hidden = width // 2
    first, second = nn.Linear(2 * width, hidden, bias=False), nn.Linear(hidden, 1, bias=False)
    return first, nn.GELU(), second, nn.Sigmoid()


def _fixed(tokens: Tensor, count: int) -> Tensor:
    """[B, L, ...] -> [B, count, ...]: cut, or padded with zeros."""
    missing = count - tokens.shape[1]
    if missing <= 0:
        return tokens[:, :count]
    return F.pad(tokens, (0, 0) * (tokens.ndim - 2) + (0, missing))
