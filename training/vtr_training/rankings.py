"""The ways to score a split: raw cosines, and what can be made of them afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vtr_runtime.rescoring import Scores, dual_softmax, query_bank_norm

from .data.clip import Clip
from .embed import EmbeddedSplit
from .evaluate import TIE, Evaluation, cosines, evaluate_scores

DSL_TEMPERATURE = 0.01  # 1 / the largest logit scale: the softmax is the one that training ends with
QB_TEMPERATURE = 1 / 20  # the authors' beta of 20
BANK_SIZE = 10_000  # captions; more cost time and memory


@dataclass(frozen=True)
class Ranking:
    """Scores of M captions against N clips, and of the clips against the captions."""

    name: str  # in JSON
    title: str  # for people
    forward: Scores  # [M, N]
    backward: Scores  # [N, M]
    tolerance: float = TIE

    def evaluate(self, clips: Sequence[Clip], owners: NDArray[np.int64]) -> Evaluation:
        return evaluate_scores(clips, self.forward, owners, backward=self.backward, tolerance=self.tolerance)


def raw_ranking(split: EmbeddedSplit) -> Ranking:
    """One cosine a pair, as an index ranks."""
    scores = cosines(split.text, split.video)
    return Ranking("raw", "raw", scores, scores.T)


def dsl_ranking(raw: Ranking) -> Ranking:
    """Dual softmax, each direction over its own queries. Its scores span many orders of magnitude, so that only equal
    ones are ties."""
    warning = "transductive: sees all queries at once; not comparable with raw figures"
    forward, backward = (dual_softmax(scores, DSL_TEMPERATURE) for scores in (raw.forward, raw.backward))
    return Ranking("dsl", f"DSL at temperature {DSL_TEMPERATURE} ({warning})", forward, backward, tolerance=0.0)


def qb_ranking(raw: Ranking, split: EmbeddedSplit, bank: NDArray[np.float32], of: int) -> Ranking:
    """QB-Norm of text to video by `bank` [B, D], embeddings of B of the `of` training captions.

    The way back stays raw: its bank would be training videos."""
    title = f"QB-Norm with {len(bank)} of {of} training captions (text to video; video to text stays raw)"
    forward = query_bank_norm(raw.forward, cosines(bank, split.video), QB_TEMPERATURE)
    return Ranking("qb-norm", title, forward, raw.backward)


def choose_bank(captions: Sequence[str]) -> list[str]:
    """At most BANK_SIZE captions, evenly spread."""
    rows = np.linspace(0, len(captions) - 1, min(BANK_SIZE, len(captions))).astype(np.int64)
    return [captions[row] for row in rows.tolist()]
