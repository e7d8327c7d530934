"""What must hold of the second stage: one query, and candidates as rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from vtr_runtime.manifest import Manifest

from ..corners import CANDIDATES, draw_query
from ..hosts.base import Arrays, Host
from ..rows import run_rows
from ..stages import FINITE
from .rows import Graph, batch_property, twice_property, twins_property
from .search import Pair, Property

TOKENS = (3, 16)
OF_A_CANDIDATE = ("frame_embeddings", "frame_mask")


class Spoiled(NamedTuple):
    """A candidate, and what stands where it, or the query, is masked: the query's embedding times `factor` would win
    every maximum, or lose it."""

    candidate: int
    factor: float


class Drawn(NamedTuple):
    seed: int
    tokens: int
    candidates: int


def rerank_properties(host: Host, manifest: Manifest, batch: int) -> Iterator[Property[Any]]:
    query = draw_query(np.random.default_rng(5), manifest, TOKENS[-1], CANDIDATES)
    graph = Graph[int](host, "rerank", lambda rows: _of(query, rows))
    row = st.integers(0, CANDIDATES - 1)
    some = st.lists(row, min_size=1, max_size=batch).map(tuple)
    full = tuple(-1 - slot % CANDIDATES + CANDIDATES for slot in range(batch))
    yield batch_property(graph, [full], some, _words)
    if batch > 1:
        yield twins_property(graph, st.lists(row, min_size=2, max_size=batch).map(tuple), _words)
    for kind in ("frame", "word"):
        if f"{kind}_embeddings" in query:
            yield _masked_property(host, graph, query, kind)
    yield twice_property(graph, some, _words)

    def finite(drawn: Drawn) -> Pair:
        feed = draw_query(np.random.default_rng(drawn.seed), manifest, drawn.tokens, drawn.candidates)
        scores = run_rows(host, "rerank", feed, drawn.candidates)
        return Pair({"scores": np.zeros_like(scores["scores"])}, scores)

    drawn = st.builds(Drawn, st.integers(0, 99), st.sampled_from(TOKENS), st.integers(1, batch))
    yield Property("rerank, finite", [Drawn(0, 2, 1)], drawn, finite, str, FINITE)


def _masked_property(host: Host, graph: Graph[int], query: Arrays, kind: str) -> Property[Spoiled]:
    rows = [row for row in range(CANDIDATES) if kind == "word" or not query["frame_mask"][row].all()]

    def run(spoiled: Spoiled) -> Pair:
        feed = {**query, f"{kind}_embeddings": _spoil(query, kind, spoiled.factor)}
        got = run_rows(host, "rerank", _of(feed, [spoiled.candidate]), 1)
        return Pair(graph.alone([spoiled.candidate]), got)

    return Property(
        f"rerank, masked {kind}s",
        [Spoiled(row, 1.0) for row in rows[:1]],
        st.builds(Spoiled, st.sampled_from(rows), st.sampled_from([1.0, -1.0, 0.5])),
        run,
        lambda spoiled: f"candidate {spoiled.candidate}, masked {kind}s replaced by {spoiled.factor:g} times the query",
    )


def _of(query: Arrays, rows: Sequence[int]) -> Arrays:
    chosen = list(rows)
    return {name: array[chosen] if name in OF_A_CANDIDATE else array for name, array in query.items()}


def _spoil(query: Arrays, kind: str, factor: float) -> NDArray[np.float32]:
    """The embeddings of `frame` or `word` with the query's own, times `factor`, where they are masked."""
    spoiled: NDArray[np.float32] = np.where(
        query[f"{kind}_mask"][..., None], query[f"{kind}_embeddings"], np.float32(factor) * query["embedding"]
    )
    return spoiled


def _words(rows: Sequence[int]) -> str:
    return f"{len(rows)} candidates: {', '.join(map(str, rows))}"
