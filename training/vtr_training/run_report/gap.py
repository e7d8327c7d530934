"""The modality gap in numbers (DITS, NeurIPS 2024): delta = v - t of unit vectors, for the matched pairs of a split.

Table 9 of the paper is the mean L1 norm and the mean similarity, figures 3 and 4 are the L2 norms, figure 5 the change
of similarity by alignment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vtr_runtime.errors import DataError

Vectors = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Gap:
    """The gaps of P matched pairs: float64 [P] each, and the length of their mean, which no single pair shows."""

    l1: NDArray[np.float64]
    l2: NDArray[np.float64]
    similarity: NDArray[np.float64]  # cosines
    mean_gap_norm: float

    def to_json(self) -> dict[str, float]:
        return {
            "mean_l1": float(self.l1.mean()),
            "mean_l2": float(self.l2.mean()),
            "mean_gap_norm": self.mean_gap_norm,
            "mean_similarity": float(self.similarity.mean()),
        }


@dataclass(frozen=True)
class GapFigures:
    before: Gap  # alignment
    after: Gap

    @property
    def change(self) -> NDArray[np.float64]:
        """[P] what alignment adds to each matched pair's similarity."""
        return self.after.similarity - self.before.similarity

    def to_json(self) -> dict[str, Any]:
        change = {"min": float(self.change.min()), "mean": float(self.change.mean()), "max": float(self.change.max())}
        return {
            "pairs": len(self.change),
            "before": self.before.to_json(),
            "after": self.after.to_json(),
            "change_of_similarity": change,
        }


def gap_figures(text_before: Vectors, text_after: Vectors, video_before: Vectors, video_after: Vectors) -> GapFigures:
    """Row i of each [P, D] belongs to pair i; rows are brought to length 1. `before` and `after` are of alignment.

    DataError for shapes that differ, no pair, or a vector without a direction."""
    shapes = {np.shape(vectors) for vectors in (text_before, text_after, video_before, video_after)}
    if len(shapes) != 1 or len(text_before) == 0 or text_before.ndim != 2:
        raise DataError(f"gaps need four equal shapes [pairs, D]; {sorted(shapes)} were given")
    return GapFigures(_gap(text_before, video_before), _gap(text_after, video_after))


def _gap(text: Vectors, video: Vectors) -> Gap:
    t, v = _unit(text), _unit(video)
    delta = v - t
    l1, l2 = (np.linalg.norm(delta, ord=order, axis=1) for order in (1, 2))
    return Gap(l1, l2, (t * v).sum(axis=1), float(np.linalg.norm(delta.mean(axis=0))))


def _unit(vectors: Vectors) -> NDArray[np.float64]:
    wide = vectors.astype(np.float64)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    if not (np.isfinite(lengths) & (lengths > 0)).all():
        raise DataError("an embedding is zero or not finite and has no direction; leave its pair out")
    return wide / lengths  # type: ignore[no-any-return]
