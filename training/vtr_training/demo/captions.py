"""What the generated clips are called: four motions per kind, several phrasings each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

COLOURS = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink")
SHAPES = {
    "circle": ("circle", "disc"),
    "square": ("square", "box"),
    "triangle": ("triangle",),
    "cross": ("cross", "plus sign"),
    "ring": ("ring", "hoop"),
    "star": ("star",),
    "heart": ("heart",),
}

MEMBERS = ("there", "back", "there-back", "back-there")

# The four members of a kind, in the order of MEMBERS: a name for files, and phrasings.
MEMBER_NAMES: dict[str, tuple[str, str, str, str]] = {
    "left-right": ("right", "left", "right-then-left", "left-then-right"),
    "up-down": ("up", "down", "up-then-down", "down-then-up"),
    "grow-shrink": ("grows", "shrinks", "grows-then-shrinks", "shrinks-then-grows"),
    "fade": ("fades-in", "fades-out", "fades-in-then-out", "fades-out-then-in"),
}
MOTIONS: dict[str, tuple[tuple[str, ...], ...]] = {
    "left-right": (
        ("moves to the right", "slides from left to right", "goes right"),
        ("moves to the left", "slides from right to left", "goes left"),
        ("moves to the right and then back to the left", "slides right, then left", "goes right and returns left"),
        ("moves to the left and then back to the right", "slides left, then right", "goes left and returns right"),
    ),
    "up-down": (
        ("moves up", "slides from bottom to top", "rises"),
        ("moves down", "slides from top to bottom", "sinks"),
        ("moves up and then back down", "slides up, then down", "rises and then sinks"),
        ("moves down and then back up", "slides down, then up", "sinks and then rises"),
    ),
    "grow-shrink": (
        ("grows", "becomes bigger", "gets larger"),
        ("shrinks", "becomes smaller", "gets tinier"),
        ("grows and then shrinks", "becomes bigger, then smaller", "gets larger and then tinier"),
        ("shrinks and then grows", "becomes smaller, then bigger", "gets tinier and then larger"),
    ),
    "fade": (
        ("fades in", "slowly appears", "becomes visible"),
        ("fades out", "slowly vanishes", "becomes invisible"),
        ("fades in and then out", "slowly appears, then vanishes", "becomes visible and then invisible"),
        ("fades out and then in", "slowly vanishes, then appears", "becomes invisible and then visible"),
    ),
}
KINDS = tuple(MOTIONS)
SENTENCES = ("a {thing} {motion}", "the {thing} {motion}", "a video in which a {thing} {motion}")


@dataclass(frozen=True)
class Cell:
    """What a caption tells apart from the member of its kind."""

    colour: str
    shape: str
    kind: str


def caption(cell: Cell, member: int, rng: np.random.Generator) -> str:
    """One phrasing of `cell` with the motion `MEMBERS[member]`."""
    thing = f"{cell.colour} {_pick(SHAPES[cell.shape], rng)}"
    sentence = _pick(SENTENCES, rng).format(thing=thing, motion=_pick(MOTIONS[cell.kind][member], rng))
    return sentence.replace("a orange", "an orange")


def captions(cell: Cell, member: int, count: int, rng: np.random.Generator) -> tuple[str, ...]:
    """`count` different phrasings."""
    found: dict[str, None] = {}
    while len(found) < count:
        found[caption(cell, member, rng)] = None
    return tuple(found)


def _pick(choices: tuple[str, ...], rng: np.random.Generator) -> str:
    return choices[int(rng.integers(len(choices)))]
