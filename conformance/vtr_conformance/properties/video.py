"""What must hold of the video graph."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from vtr_runtime.manifest import FrameSpec

from ..corners import draw_clips
from ..hosts.base import Arrays, Host
from .rows import Graph, batch_property, length_property, twice_property, twins_property
from .search import Pair, Property

BLOCKS = 3
# Rows of a drawn batch; the named one is as large as the profile's largest.
DRAWN_ROWS = 8
# Rows that are run twice, which costs double.
FEW_ROWS = 3


@dataclass(frozen=True)
class ClipRow:
    """A clip of one of the pictures; `shown` is its mask, `hidden` the picture of the frames behind the mask."""

    picture: str
    shown: tuple[bool, ...]
    hidden: str = "black"

    def __str__(self) -> str:
        places = [place for place, shown in enumerate(self.shown) if shown]
        some = f"frame{'s' if len(places) > 1 else ''} {' '.join(map(str, places))} of {len(self.shown)}"
        return f"{self.picture}, {'all frames' if all(self.shown) else some}"


def video_properties(host: Host, spec: FrameSpec, batch: int) -> Iterator[Property[Any]]:
    pictures = draw_pictures(spec)
    graph = Graph[ClipRow](host, "video", lambda rows: feed(pictures, rows))
    pool = _pool(spec.count, list(pictures))
    row = st.sampled_from(pool)
    most = min(batch, DRAWN_ROWS)
    some = st.lists(row, min_size=1, max_size=most).map(tuple)
    full = tuple(pool[-1 - slot % len(pool)] for slot in range(batch))
    yield batch_property(graph, [full], some, _words)
    if batch > 1:
        yield twins_property(graph, st.lists(row, min_size=2, max_size=most).map(tuple), _words)
    if spec.count > 1:
        masked = [row for row in pool if not all(row.shown)]
        spoiled = st.builds(replace, st.sampled_from(masked), hidden=st.sampled_from(list(pictures)[1:]))
        yield Property(
            "video, pixels of masked frames",
            [replace(row, hidden="noise") for row in masked[:2]],
            spoiled,
            lambda row: Pair(graph.alone([replace(row, hidden="black")]), graph.alone([row])),
            lambda row: f"{row}; the others are {row.hidden}",
        )
    few = st.lists(row, min_size=1, max_size=min(batch, FEW_ROWS)).map(tuple)
    yield twice_property(graph, few, _words)
    first, every = _shown(spec.count, [0]), _shown(spec.count, range(spec.count))
    named = [ClipRow(picture, shown) for picture in pictures for shown in dict.fromkeys((first, every))]
    drawn = st.builds(ClipRow, st.sampled_from(list(pictures)), _masks(spec.count))
    yield length_property(host, graph, named, drawn, str)


def draw_pictures(spec: FrameSpec) -> dict[str, NDArray[np.uint8]]:
    """Clips uint8 [T, S, S, 3] by name, the simplest first."""
    shape = (spec.count, spec.size, spec.size, 3)
    pictures = {"black": np.zeros(shape, np.uint8), "white": np.full(shape, 255, np.uint8)}
    pictures["noise"] = np.random.default_rng(3).integers(0, 256, shape, dtype=np.uint8)
    blocks = draw_clips(spec)["frames"][:BLOCKS]
    return pictures | {f"blocks {number}": clip for number, clip in enumerate(blocks)}


def feed(pictures: dict[str, NDArray[np.uint8]], rows: Sequence[ClipRow]) -> Arrays:
    mask = np.array([row.shown for row in rows])
    seen = np.stack([pictures[row.picture] for row in rows])
    behind = np.stack([pictures[row.hidden] for row in rows])
    return {"frames": np.where(mask[:, :, None, None, None], seen, behind), "frame_mask": mask}


def _pool(count: int, pictures: Sequence[str]) -> list[ClipRow]:
    """A few rows of which batches are made: each is run alone only once, and the simplest stands first."""
    *plain, first, second, third = pictures
    shown = [
        (plain[0], [0]),
        (plain[1], [0]),
        (first, [0]),
        (first, range(0, count, 2)),
        (second, range(max(1, count // 2))),
        (third, [count - 1]),
        (second, range(count)),
        (third, range(count)),
    ]
    return list(dict.fromkeys(ClipRow(picture, _shown(count, places)) for picture, places in shown))


def _shown(count: int, places: Sequence[int]) -> tuple[bool, ...]:
    return tuple(place in places for place in range(count))


def _masks(count: int) -> st.SearchStrategy[tuple[bool, ...]]:
    """Any mask that shows a frame."""
    places = st.sets(st.integers(0, count - 1), min_size=1)
    return places.map(lambda shown: _shown(count, sorted(shown)))


def _words(rows: Sequence[ClipRow]) -> str:
    return f"batch {len(rows)} of {' | '.join(map(str, rows))}"
