"""Rows through a graph of a host, with an answer for each row or an error."""

from __future__ import annotations

import numpy as np

from vtr_runtime.errors import BackendError

from .hosts.base import Arrays, Host

# What the towers give to hosts. The inner stages, outputs of a debug graph, are the golden vectors' to judge.
OUTPUTS = ("embedding", "frame_embeddings", "word_embeddings", "word_mask")


def run_rows(host: Host, graph: str, feed: Arrays, batch: int) -> Arrays:
    """Run a graph on any number of rows, `batch` at a time: OUTPUTS by name, as far as it has them. `rerank` takes one
    query and gives `scores`.

    BackendError where it has no embedding, or another number of rows than it was given; and what the host raises."""
    if graph == "rerank":
        return _ask(host, graph, feed, ("scores",), len(feed["frame_mask"]))
    rows = len(next(iter(feed.values())))
    parts = []
    for start in range(0, rows, batch):
        some = {name: array[start : start + batch] for name, array in feed.items()}
        parts.append(_ask(host, graph, some, OUTPUTS, min(batch, rows - start)))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _ask(host: Host, graph: str, feed: Arrays, outputs: tuple[str, ...], rows: int) -> Arrays:
    """Run it once; the first of `outputs` must be among what it gives."""
    given = host.run(graph, feed)
    found = {name: given[name] for name in outputs if name in given}
    if outputs[0] not in found:
        raise BackendError(f"the {graph} graph gave no output {outputs[0]}; it has {', '.join(given) or 'none'}")
    for name, array in found.items():
        if array.shape[:1] != (rows,):
            raise BackendError(f"the {graph} graph gave {name} of shape {list(array.shape)} for {rows} rows")
    return found
