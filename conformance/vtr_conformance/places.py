"""A place in an output, in the words of the stage: which clip, frame, caption, row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .comparators import Comparison

# What the rows of an axis are called, by the axis's name: the clips' file names, the captions.
Labels = Mapping[str, Sequence[str]]
LONGEST_LABEL = 60


def describe(found: Comparison, axes: Sequence[str], labels: Labels) -> str:
    """Where the largest difference stands: "embedding at clip 2 ('bear.webm'), number 17"; else empty."""
    parts = [_name(axis, index, labels) for axis, index in zip(axes, found.place, strict=False)]
    at = f"at {', '.join(parts)}" if parts else ""
    words = f"{found.output}{':' if found.output and found.trouble else ''} {found.trouble} {at}"
    return " ".join(words.split()) if at or found.trouble else ""


def _name(axis: str, index: int, labels: Labels) -> str:
    known = labels.get(axis, ())
    if index >= len(known):
        return f"{axis} {index}"
    label = known[index] if len(known[index]) <= LONGEST_LABEL else known[index][: LONGEST_LABEL - 1] + "…"
    return f"{axis} {index} ({label!r})"
