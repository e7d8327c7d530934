"""Sentences without end, none twice: so that nothing that is remembered makes an engine look fast."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

CAPTIONS = Path(__file__).with_name("captions.txt")  # as long as those of MSR-VTT: 5 to 26 tokens, 11.6 on average


def sentences() -> Iterator[str]:
    """Captions as long as real ones: one's first word, another's first half and a third's second, none twice."""
    captions = [line.split() for line in CAPTIONS.read_text(encoding="utf-8").splitlines()]
    generator, seen = np.random.default_rng(0), set[str]()
    while True:
        one, two, three = (captions[number] for number in generator.integers(len(captions), size=3))
        text = " ".join([one[0], *two[1 : len(two) // 2], *three[len(three) // 2 :]])
        if text not in seen:
            seen.add(text)
            yield text
