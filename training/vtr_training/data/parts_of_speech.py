"""Which tagger finds the words of a caption that matter, said to the person who trains."""

from __future__ import annotations

from vtr_runtime.console import note
from vtr_runtime.parts_of_speech import Tagger, find_tagger


def choose_tagger(name: str = "auto") -> Tagger:
    """As `find_tagger`; `auto` says on standard error which one and why."""
    tagger, why = find_tagger(name)
    if name == "auto":
        note(f"parts of speech: by {tagger.name} ({why})")
    return tagger
