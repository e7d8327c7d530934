"""Measures what a report shows beside its verdict. Nothing here makes a run fail: what cannot be had is noted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from vtr_runtime.bundle import Bundle
from vtr_runtime.errors import VtrError

from ..cases import Case
from ..hosts import Host
from .about import describe
from .operators import graph_operators
from .records import Details, ModuleError, Wanted
from .score_pairs import golden_pairs
from .speed import time_hosts

if TYPE_CHECKING:
    from ..hosts.torch import TorchHost


def collect(
    bundle: Bundle,
    hosts: Sequence[Host],
    reference: TorchHost | None,
    cases: Sequence[Case],
    wanted: Wanted,
    batch: int,
) -> Details:
    """`batch` is the largest that the graphs are run with; `reference` is PyTorch, where the checkpoint is at hand."""
    about = describe(bundle, wanted.command)
    operators, notes = graph_operators(bundle, None if reference is None else reference.model)
    modules, more = _modules(bundle, cases) if wanted.modules else ([], ["errors by module were turned off"])
    notes += more
    everyone = [*hosts, *([] if reference is None else [reference])]
    latencies, more = time_hosts(everyone, cases, batch) if wanted.speed else ([], ["timing was turned off"])
    notes += more
    pairs = tuple(golden_pairs(hosts, cases))
    return Details(about, tuple(modules), tuple(operators), tuple(latencies), pairs, tuple(notes))


def _modules(bundle: Bundle, cases: Sequence[Case]) -> tuple[list[ModuleError], list[str]]:
    from .modules import graph_feeds, module_errors

    found: list[ModuleError] = []
    notes = []
    graphs = bundle.manifest.graphs.named()
    try:
        feeds = graph_feeds(bundle, cases)
    except VtrError as error:
        return [], [f"no errors by module: {error}"]
    for name, feed in feeds.items():
        try:
            found += module_errors(name, bundle.file(graphs[name].file), feed)
        except VtrError as error:
            notes.append(f"no errors by module of {graphs[name].file}: {error}")
    return found, notes
