"""Rows of a graph that are run alone once and remembered, so that an example costs one run: that of its batch."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from ..hosts.base import Arrays, Host
from ..rows import run_rows
from ..stages import SAME_BITS, UNIT_LENGTH
from .search import Pair, Property

Row = TypeVar("Row", bound=Hashable)


@dataclass(frozen=True)
class Twins(Generic[Row]):
    """A batch whose rows `first` and `second` are the same."""

    rows: tuple[Row, ...]
    first: int
    second: int


class Graph(Generic[Row]):
    """A graph of a host, asked by row: `feed_of` makes the inputs of a batch."""

    def __init__(self, host: Host, name: str, feed_of: Callable[[Sequence[Row]], Arrays]) -> None:
        self.name = name
        self._host, self._feed_of = host, feed_of
        self._known: dict[Row, Arrays] = {}

    def together(self, rows: Sequence[Row]) -> Arrays:
        """The outputs of one batch."""
        return run_rows(self._host, self.name, self._feed_of(rows), len(rows))

    def alone(self, rows: Sequence[Row]) -> Arrays:
        """The outputs of each row in a batch of its own."""
        for row in rows:
            if row not in self._known:
                self._known[row] = self.together([row])
        return {name: np.concatenate([self._known[row][name] for row in rows]) for name in self._known[rows[0]]}


def batch_property(
    graph: Graph[Row],
    named: Sequence[tuple[Row, ...]],
    drawn: SearchStrategy[tuple[Row, ...]],
    words: Callable[[Sequence[Row]], str],
) -> Property[tuple[Row, ...]]:
    return Property(
        f"{graph.name}, any batch, slot and order",
        named,
        drawn,
        lambda rows: Pair(graph.alone(rows), graph.together(rows)),
        words,
    )


def twins_property(
    graph: Graph[Row], drawn: SearchStrategy[tuple[Row, ...]], words: Callable[[Sequence[Row]], str]
) -> Property[Twins[Row]]:
    """`drawn` gives batches of two rows at least."""

    def run(twins: Twins[Row]) -> Pair:
        outputs = graph.together(twins.rows)
        first, second = ({name: array[[row]] for name, array in outputs.items()} for row in (twins.first, twins.second))
        return Pair(first, second)

    @st.composite
    def twins(draw: st.DrawFn) -> Twins[Row]:
        rows = draw(drawn)
        first = draw(st.integers(0, len(rows) - 2))
        second = draw(st.integers(first + 1, len(rows) - 1))
        return Twins((*rows[:second], rows[first], *rows[second + 1 :]), first, second)

    return Property(
        f"{graph.name}, equal rows",
        (),
        twins(),
        run,
        lambda found: f"{words(found.rows)}; rows {found.first} and {found.second} are the same",
    )


def twice_property(
    graph: Graph[Row], drawn: SearchStrategy[tuple[Row, ...]], words: Callable[[Sequence[Row]], str]
) -> Property[tuple[Row, ...]]:
    return Property(
        f"{graph.name}, the same input twice",
        (),
        drawn,
        lambda rows: Pair(graph.together(rows), graph.together(rows)),
        words,
        SAME_BITS,
    )


def length_property(
    host: Host, graph: Graph[Row], named: Sequence[Row], drawn: SearchStrategy[Row], words: Callable[[Row], str]
) -> Property[Row]:
    def run(row: Row) -> Pair:
        norms = np.linalg.norm(graph.alone([row])["embedding"].astype(np.float64), axis=-1)
        return Pair({"norm": np.ones_like(norms)}, {"norm": norms})

    case = f"{graph.name}, finite and of unit length"
    return Property(case, named, drawn, run, words, UNIT_LENGTH[host.precision])
