"""Optimisation profiles: for which batches and lengths a graph's kernels are chosen.

Text is asked one query at a time and must answer at once; video is embedded in batches and must be embedded cheaply. So
each graph gets profiles of its own, and no profile is wider than its use."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..errors import UsageError
from ..manifest import GraphSpec, Manifest
from .record import Shapes

# A sentence is at least its start and its end.
FEWEST_TOKENS = 2


@dataclass(frozen=True)
class Range:
    """The smallest, the best served and the largest size of a dynamic axis."""

    min: int
    opt: int
    max: int

    @classmethod
    def parse(cls, text: str, *, option: str = "--batch") -> Range:
        """Read `MIN:OPT:MAX`; anything but three rising whole numbers from 1 is a UsageError that names `option`."""
        parts = text.split(":")
        if len(parts) != 3 or not all(part.isascii() and part.isdigit() for part in parts):
            raise UsageError(f"{option} {text!r} is not MIN:OPT:MAX; give three whole numbers, such as {option} 1:8:32")
        sizes = cls(*(int(part) for part in parts))
        if not 1 <= sizes.min <= sizes.opt <= sizes.max:
            raise UsageError(f"{option} {text!r} does not rise from 1; give MIN <= OPT <= MAX, such as {option} 1:8:32")
        return sizes

    def __str__(self) -> str:
        return f"{self.min}:{self.opt}:{self.max}"


# By axis name: the ranges of one profile.
Profile = dict[str, Range]


@dataclass(frozen=True)
class ProfileRequest:
    """What the user may widen or narrow."""

    batch: Range = field(default=Range(1, 8, 32))  # clips at a time
    text_batch: Range = field(default=Range(1, 16, 64))  # sentences at a time, beside the single query
    candidates: Range = field(default=Range(1, 32, 128))  # videos that the second stage rescores


def graph_profiles(manifest: Manifest, request: ProfileRequest | None = None) -> dict[str, tuple[Profile, ...]]:
    """The profiles of every graph of a bundle, each checked against the graph and the context length."""
    request = request or ProfileRequest()
    longest = manifest.text.context_length
    query, many = _tokens(16, longest), _tokens(32, longest)
    text = ({"batch": Range(1, 1, 1), "tokens": query}, {"batch": request.text_batch, "tokens": many})
    clips = ({"batch": request.batch},)
    # The encoder of single frames takes a batch of clips frame by frame.
    frame = Range(1, request.batch.opt * manifest.frames.count, request.batch.max * manifest.frames.count)
    rescoring = ({"candidates": request.candidates, "tokens": many},)
    wanted: dict[str, tuple[Profile, ...]] = {
        "text": text, "video": clips, "frames": ({"batch": frame},), "temporal": clips, "rerank": rescoring,
    }  # fmt: skip
    chosen = {}
    for name, graph in manifest.graphs.named().items():
        axes = dynamic_axes(graph)
        profiles = tuple({axis: profile[axis] for axis in axes if axis in profile} for profile in wanted[name])
        for profile in profiles:
            check_profile(name, graph, profile, longest)
        chosen[name] = profiles
    return chosen


def _tokens(opt: int, longest: int) -> Range:
    return Range(FEWEST_TOKENS, min(opt, longest), longest)


def dynamic_axes(graph: GraphSpec) -> list[str]:
    """The names of a graph's dynamic input axes, in order of appearance."""
    return list(dict.fromkeys(size for given in graph.inputs for size in given.shape if isinstance(size, str)))


def check_profile(name: str, graph: GraphSpec, profile: Profile, context_length: int) -> None:
    """Refuse a profile that the graph cannot be run with."""
    axes = dynamic_axes(graph)
    for axis in axes:
        if axis not in profile:
            raise UsageError(f"the profile of {name} says nothing of its axis '{axis}'; give it as MIN:OPT:MAX")
    for axis, sizes in profile.items():
        if axis not in axes:
            fixed = f"its dynamic axes are: {', '.join(axes) or 'none'}"
            raise UsageError(f"the profile of {name} sets '{axis}', which the graph does not leave free; {fixed}")
        if axis == "tokens" and not FEWEST_TOKENS <= sizes.min <= sizes.max <= context_length:
            raise UsageError(
                f"the profile of {name} asks for tokens {sizes}, and the graph takes "
                f"{FEWEST_TOKENS} to {context_length}; stay within them"
            )


def input_shapes(graph: GraphSpec, profile: Profile) -> Shapes:
    """By input: its smallest, best served and largest shape."""

    def shape(given: tuple[int | str, ...], corner: str) -> tuple[int, ...]:
        return tuple(getattr(profile[size], corner) if isinstance(size, str) else size for size in given)

    return {
        given.name: (shape(given.shape, "min"), shape(given.shape, "opt"), shape(given.shape, "max"))
        for given in graph.inputs
    }
