"""What the writer and the readers of golden vectors share.

`golden/golden.json`: {schema, made_by, tensors: [file], labels, cases: [{id, stage, inputs: {media | texts | tensors},
expected, comparator, tolerance}]}, where `expected` and `inputs.tensors` map names to keys of the safetensors files
beside it, `comparator` and `tolerance` have an entry for each precision, and `labels` (optional) say what the rows of
an axis are called: {caption: [...], clip: [...], candidate: [...]}. docs/golden-vectors.md tells the rest."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

GOLDEN_SCHEMA = 1


def frame_digests(frames: Iterable[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """sha256 of each frame's bytes, uint8 [N, 32]: full-size frames are compared without being stored."""
    rows = [np.frombuffer(hashlib.sha256(np.ascontiguousarray(frame).tobytes()).digest(), np.uint8) for frame in frames]
    return np.stack(rows) if rows else np.zeros((0, 32), np.uint8)


def exact_times(times: Sequence[Fraction]) -> NDArray[np.int64]:
    """Times in seconds as numerator and denominator, int64 [N, 2]."""
    return np.array([(time.numerator, time.denominator) for time in times], np.int64).reshape(-1, 2)
