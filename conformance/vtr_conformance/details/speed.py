"""How long one call of a graph takes on each host: a few repetitions, for a page that shows speed beside quality.

No benchmark: other work on the machine is not kept away, and a long call is timed once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median

import numpy as np

from vtr_runtime.errors import VtrError

from ..cases import Case
from ..hosts import TYPED_GRAPH, Host
from ..hosts.base import Arrays
from .records import Latency

# A measurement ends after so many calls, or so many seconds, whichever comes first.
MOST_TIMES, SECONDS = 7, 2.0


def time_hosts(hosts: Sequence[Host], cases: Sequence[Case], batch: int) -> tuple[list[Latency], list[str]]:
    """One sentence, one clip and `batch` of each on every host, and what could not be timed. The typed executor is a
    proof and no engine: it is left out."""
    feeds = list(_feeds(cases, batch))
    found: list[Latency] = []
    notes = []
    for host in hosts:
        if host.name == TYPED_GRAPH:
            continue
        try:
            found += [_time(host, graph, rows, feed) for graph, rows, feed in feeds if host.lacks(graph) is None]
        except VtrError as error:
            notes.append(f"{host.name} {host.backend} was not timed: {error}")
    return found, notes


def _feeds(cases: Sequence[Case], batch: int) -> Iterator[tuple[str, int, Arrays]]:
    inputs = {case.stage: case.arrays for case in cases if case.arrays is not None}
    if ids := inputs.get("aligned"):
        # A sentence of some words, without the padding behind its end.
        row = ids["input_ids"][1:2]
        row = row[:, : int(np.flatnonzero(row[0])[-1]) + 1]
        for rows in sorted({1, batch}):
            yield "text", rows, {"input_ids": np.repeat(row, rows, axis=0)}
    if clips := inputs.get("video_embedding"):
        for rows in sorted({1, batch}):
            yield "video", rows, {name: np.repeat(array[:1], rows, axis=0) for name, array in clips.items()}


def _time(host: Host, graph: str, rows: int, feed: Arrays) -> Latency:
    seconds = [host.timed(graph, feed)[1]]
    if seconds[0] < SECONDS:  # else what is done once only is a small part of it
        seconds.clear()
        while len(seconds) < MOST_TIMES and sum(seconds) < SECONDS:
            seconds.append(host.timed(graph, feed)[1])
    return Latency(host.name, host.backend, host.precision, graph, rows, len(seconds), 1000 * median(seconds))
