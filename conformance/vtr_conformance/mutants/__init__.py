"""The suite's own check: hosts and exports with one deliberate mistake each, which it must find at the right stage."""

from __future__ import annotations

from .feeding import FEEDING
from .frames import FRAMES
from .mutant import ExportMutant, HostMutant, Mutant
from .precision import PRECISION
from .rerank_graph import RERANK_GRAPH
from .sampler_graph import SAMPLER_GRAPH
from .text_graph import TEXT_GRAPH
from .video_graph import VIDEO_GRAPH
from .words import WORDS

__all__ = ["MUTANTS", "ExportMutant", "HostMutant", "Mutant"]

MUTANTS: tuple[Mutant, ...] = (
    *FRAMES,
    *WORDS,
    *FEEDING,
    *TEXT_GRAPH,
    *SAMPLER_GRAPH,
    *VIDEO_GRAPH,
    *RERANK_GRAPH,
    *PRECISION,
)
