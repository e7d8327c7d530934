"""Embeddings without videos: a mixture of clusters with the spread of real ones, and queries of two kinds.

    row = unit(sqrt(between) m + sqrt(within - between) c_j + sqrt(1 - within) n)

m is the direction that all rows of a modality share (their cone), c_j a cluster's, n the row's own, all random and of
length 1. Rows of different clusters then have the cosine `between` on average, rows of one cluster `within`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from vtr_runtime.index import Index
from vtr_runtime.rows import EmbeddingTable, RowTable

BLOCK = 16384
Rows = NDArray[np.float32]


@dataclass(frozen=True)
class Spread:
    """Mean cosines of rows of different clusters and of one. Sentences lie in a cone of their own: their mean cosine
    with any row is `apart`, with the rows of what they say `apart` + `match`."""

    between: float = 0.5
    within: float = 0.8
    apart: float = 0.17
    match: float = 0.13


@dataclass(frozen=True)
class Mixture(EmbeddingTable):
    """`count` rows as a source for an index, drawn block by block."""

    count: int = 0
    clusters: int = 0
    spread: Spread = Spread()

    @classmethod
    def of(cls, count: int, dim: int, clusters: int, spread: Spread) -> Mixture:
        nothing = np.zeros((0, dim), np.float32)
        return cls(nothing, (), np.zeros((0, 2)), "benchmark", count=count, clusters=clusters, spread=spread)

    @property
    def table(self) -> RowTable:
        paths = [b"videos/%07d.mp4" % row for row in range(self.count)]
        return RowTable(paths, np.full((self.count, 2), np.nan), np.full((self.count, 2), -1, np.int64))

    def vector_blocks(self) -> Iterator[Rows]:
        for start in range(0, self.count, BLOCK):
            yield self.rows(min(BLOCK, self.count - start), seed=1 + start)

    def rows(self, count: int, seed: int) -> Rows:
        """Rows of the mixture; with another seed, others."""
        random = np.random.default_rng(seed)
        spread, places = self.spread, random.integers(0, self.clusters, count)
        own = directions(random, count, self.dim)
        parts = (spread.between, self._cone), (spread.within - spread.between, self._centres[places])
        return unit(sum(np.float32(np.sqrt(part)) * rows for part, rows in (*parts, (1 - spread.within, own))))

    def sentences(self, count: int, seed: int) -> Rows:
        """Queries from the other modality's cone, each about one cluster."""
        random = np.random.default_rng(seed)
        spread, places = self.spread, random.integers(0, self.clusters, count)
        about = spread.match / np.sqrt(spread.within - spread.between)  # along the centre
        # along the rows' cone, which may be too wide for that cosine
        shared = min(spread.apart / np.sqrt(spread.between), np.sqrt(spread.between))
        other = directions(np.random.default_rng(0), 2, self.dim)[1]
        aside = np.sqrt(max(0.0, spread.between - shared**2))  # sentences are as like one another as rows are
        own = np.sqrt(1 - about**2 - shared**2 - aside**2)
        own_part = np.float32(own) * directions(random, count, self.dim)
        return unit(shared * self._cone + aside * other + about * self._centres[places] + own_part)

    @cached_property
    def _cone(self) -> Rows:
        return directions(np.random.default_rng(0), 1, self.dim)[0]

    @cached_property
    def _centres(self) -> Rows:
        return directions(np.random.default_rng(2), self.clusters, self.dim)


def measure_spread(index: Index, neighbours: int = 10, sample: int = 500) -> tuple[float, float]:
    """Of real rows: the mean cosine of any two, and that of a row and its nearest ones."""
    random = np.random.default_rng(0)
    chosen = index.vectors[np.sort(random.choice(index.count, min(sample, index.count), replace=False))]
    some = chosen.astype(np.float32)
    pairs = (some @ some.T)[np.triu_indices(len(some), 1)]
    nearest = [scores[1 : neighbours + 1].mean() for scores, _ in index.search_rows(some, neighbours + 1)]
    return max(1e-3, float(pairs.mean())), float(np.mean(nearest))


def directions(random: np.random.Generator, count: int, dim: int) -> Rows:
    return unit(random.standard_normal((count, dim), dtype=np.float32))


def unit(rows: NDArray[np.floating]) -> Rows:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
