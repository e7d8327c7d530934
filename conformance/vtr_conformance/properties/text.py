"""What must hold of the text graph."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from vtr_runtime.manifest import TextSpec

from ..corners import draw_sentence
from ..hosts.base import Host
from .rows import Graph, batch_property, length_property, twice_property, twins_property
from .search import Pair, Property

# Batches are run at this many tokens and at the context length.
SHORT = 16
LONGEST_LIST = 6


@dataclass(frozen=True)
class Sentence:
    """A drawn sentence whose end of text stands at `end`, in `length` tokens; `behind` are the first after its end."""

    end: int
    length: int
    behind: tuple[int, ...] = ()


def text_properties(host: Host, spec: TextSpec, batch: int) -> Iterator[Property[Any]]:
    graph = Graph[Sentence](host, "text", lambda rows: {"input_ids": np.stack([ids_of(row, spec) for row in rows])})
    context = spec.context_length
    lengths = [length for length in (SHORT, context) if length <= context]

    @st.composite
    def some(draw: st.DrawFn, fewest: int = 1) -> tuple[Sentence, ...]:
        length = draw(st.sampled_from(lengths))
        ends = draw(st.lists(st.integers(1, length - 1), min_size=fewest, max_size=batch))
        return tuple(Sentence(end, length) for end in ends)

    full = [tuple(Sentence(int(end), n) for end in np.linspace(n - 1, 1, batch)) for n in lengths]
    yield batch_property(graph, full, some(), _words)
    if batch > 1:
        yield twins_property(graph, some(2), _words)

    @st.composite
    def padded(draw: st.DrawFn) -> Sentence:
        end = draw(st.integers(1, context - 2))
        return Sentence(end, draw(st.integers(end + 2, context)))

    yield Property(
        "text, padding",
        [Sentence(1, context), Sentence(context // 2, context), Sentence(context - 2, context)],
        padded(),
        lambda row: Pair(_embedding(graph, Sentence(row.end, row.end + 1)), _embedding(graph, row)),
        lambda row: f"end of text at {row.end}, {row.length} tokens",
    )

    word = st.integers(0, spec.vocab_size - 1) | st.sampled_from([spec.start_id, spec.end_id])

    @st.composite
    def followed(draw: st.DrawFn) -> Sentence:
        end = draw(st.integers(1, context - 2))
        behind = draw(st.lists(word, min_size=1, max_size=context - end - 1))
        return Sentence(end, end + 1 + len(behind), tuple(behind))

    highest = spec.vocab_size - 1
    yield Property(
        "text, tokens behind the end",
        [Sentence(2, context, (token,) * (context - 3)) for token in (spec.start_id, spec.end_id, highest)],
        followed(),
        lambda row: Pair(_embedding(graph, Sentence(row.end, row.length)), _embedding(graph, row)),
        lambda row: f"end of text at {row.end}, behind it {_ids(row.behind)}",
    )
    yield twice_property(graph, some(), _words)
    yield _length_property(host, spec)


def _length_property(host: Host, spec: TextSpec) -> Property[tuple[int, ...]]:
    """A row is the words of a caption, as ids."""
    graph = Graph[tuple[int, ...]](host, "text", lambda rows: {"input_ids": _captions(rows, spec)})
    room = spec.context_length - 2
    words = [token for token in (1, spec.vocab_size - 1) if token not in (spec.start_id, spec.end_id)]
    named = [(), *((word,) for word in words), *((word,) * room for word in words)]
    drawn = st.integers(0, spec.vocab_size - 1).filter(lambda token: token not in (spec.start_id, spec.end_id))
    return length_property(
        host,
        graph,
        named,
        st.lists(drawn, max_size=room).map(tuple),
        lambda row: f"a caption of {_ids(row)}" if row else "the empty caption",
    )


def ids_of(row: Sentence, spec: TextSpec) -> NDArray[np.int32]:
    """int32 [length]."""
    ids = draw_sentence(np.random.default_rng(row.end), spec, row.end)[: row.length]
    ids[row.end + 1 : row.end + 1 + len(row.behind)] = row.behind
    return ids


def _captions(rows: Sequence[tuple[int, ...]], spec: TextSpec) -> NDArray[np.int32]:
    """Rows of one length."""
    return np.array([[spec.start_id, *row, spec.end_id] for row in rows], np.int32)


def _embedding(graph: Graph[Sentence], row: Sentence) -> dict[str, NDArray[np.float32]]:
    """Alone, without the words: those behind the end may be anything."""
    return {"embedding": graph.alone([row])["embedding"]}


def _words(rows: Sequence[Sentence]) -> str:
    ends = ", ".join(str(row.end) for row in rows)
    return f"batch {len(rows)} of {rows[0].length} tokens, end of text at {ends}"


def _ids(tokens: Sequence[int]) -> str:
    listed = " ".join(map(str, tokens[:LONGEST_LIST]))
    count = f"{len(tokens)} token{'s' if len(tokens) > 1 else ''}"
    return f"{count}, {listed}" + (" ..." if len(tokens) > LONGEST_LIST else "")
