"""Cosines of the golden captions with the golden clips: PyTorch's, as recorded in the bundle, and each host's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from vtr_runtime.errors import VtrError

from ..cases import Case
from ..hosts import Host
from .records import MAX_PAIRS, ScorePairs


def golden_pairs(hosts: Sequence[Host], cases: Sequence[Case]) -> Iterator[ScorePairs]:
    """Of each host that answers the stage `ranking`; one that does not is in the results, with the reason."""
    for case in (case for case in cases if case.stage == "ranking"):
        wanted = case.expected["scores"].ravel()
        chosen = np.unique(np.linspace(0, wanted.size - 1, min(wanted.size, MAX_PAIRS)).astype(np.intp))
        for host in hosts:
            try:
                answer = host.answer(case)
            except VtrError:
                continue
            if isinstance(answer, str) or answer["scores"].size != wanted.size:
                continue
            found = answer["scores"].ravel()[chosen]
            reference = tuple(map(float, wanted[chosen]))
            yield ScorePairs(host.name, host.backend, host.precision, reference, tuple(map(float, found)))
