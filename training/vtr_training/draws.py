"""Random draws of a step (dropout, noise of the alignment heads) as a pure function of seed, step and place.

So a part of a batch that is encoded twice meets the same noise twice, processes need not agree on anything, and a
resumed run draws what an uninterrupted one would."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

OBJECTIVE = 0
"""The place of the losses; a part of the batch has that of its first row, counted from 1."""

_STREAM = 3  # data.batches has 0 to 2


@contextmanager
def own_draws(seed: int, step: int, place: int, device: torch.device) -> Iterator[None]:
    """Inside, torch draws from a stream of its own; after it, everything is as it was."""
    number = int(np.random.SeedSequence([seed, _STREAM, step, place]).generate_state(1, np.uint64)[0] >> 1)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(number)
        yield
