"""What must hold of a host whatever it is asked: the batch, the slot and the order of a row do not matter, nor padding,
nor what is masked; the same input gives the same bits; an embedding is finite and of unit length.

A host is held to itself here, so no reference is needed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from vtr_runtime.manifest import Manifest

from ..examples import EXAMPLES, VIDEO_SHARE
from ..hosts.base import Host
from ..judge import not_run
from ..results import Result
from .rerank import rerank_properties
from .search import STAGE, Property, search
from .text import text_properties
from .video import video_properties

__all__ = ["check_properties"]


def check_properties(host: Host, manifest: Manifest, batch: int, examples: int = EXAMPLES) -> Iterator[Result]:
    """One result a property and graph. `batch` is the largest that the graphs are run with."""
    for graph, asked, count in _properties(host, manifest, batch, examples):
        if (why := host.lacks(graph)) is not None:
            yield not_run(host, STAGE, asked.case, why)
        else:
            yield search(host, asked, count)


def _properties(host: Host, manifest: Manifest, batch: int, examples: int) -> Iterator[tuple[str, Property[Any], int]]:
    for asked in video_properties(host, manifest.frames, batch):
        yield "video", asked, max(1, examples // VIDEO_SHARE)
    for asked in text_properties(host, manifest.text, batch):
        yield "text", asked, examples
    if manifest.graphs.rerank is not None:
        for asked in rerank_properties(host, manifest, batch):
            yield "rerank", asked, examples
