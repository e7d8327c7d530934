"""The figures of the page. A status is told by a mark's form as well, never by colour alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, NullLocator

from vtr_export.pages.figures import GREY, new_figure, styled
from vtr_runtime.console import printable

from ..details.records import Latency, ModuleError, ScorePairs
from .summary import StageSummary, share_of_limit

# Okabe and Ito's, which people of every colour vision tell apart, without the yellow.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
FAILED = "#d62728"
# Decades below the limit that are drawn; to their left stand "no difference" and "not run".
LOWEST, HIGHEST = -6, 1
NOTHING, NOT_RUN = LOWEST - 1, LOWEST - 2
Pair = tuple[float, float]  # the reference's and the host's
# Hosts whose scores are drawn.
MOST_HOSTS = 4
# Errors outside are drawn at these.
SMALLEST_ERROR, LARGEST_ERROR = 1e-9, 10.0


@styled
def stage_errors(found: Sequence[StageSummary]) -> Figure:
    """What was measured over its limit: a row a stage, a mark a host."""
    stages = list(dict.fromkeys(summary.stage for summary in found))
    hosts = list(dict.fromkeys(summary.on for summary in found))
    figure, [view] = new_figure(1, 1, size=(10.5, 1.2 + 0.36 * len(stages)))
    view.axvspan(0, HIGHEST + 0.5, color=FAILED, alpha=0.10, linewidth=0)
    view.axvline(0, color=FAILED, linewidth=1.4)
    view.axvline(NOTHING - 0.5, color=GREY, linewidth=0.6, linestyle=":")
    for place in range(len(stages)):
        view.axhline(place, color=GREY, linewidth=0.4, alpha=0.4)
    for place, host in enumerate(hosts):
        offset = 0.7 * (place - (len(hosts) - 1) / 2) / max(1, len(hosts))
        colour = COLOURS[place % len(COLOURS)]
        for summary in (summary for summary in found if summary.on == host):
            _mark(view, _decades(summary), stages.index(summary.stage) + offset, summary, colour)
        view.plot([], [], "o", color=colour, label=_plain(host))
    for marker, label in (("X", "failed"), ("o", "not run")):
        fill = GREY if marker == "X" else "none"
        view.plot([], [], marker, color=GREY, markerfacecolor=fill, linestyle="none", label=label)
    decades = range(LOWEST, 0, 2)
    ticks = [NOT_RUN, NOTHING, *decades, 0, HIGHEST]
    labels = ["not run", "no\ndifference", *(f"{10.0**n:g}" for n in decades), "limit", "10 x"]
    view.set_xticks(ticks, labels)
    view.set_yticks(range(len(stages)), stages)
    view.set(xlim=(NOT_RUN - 0.5, HIGHEST + 0.5), ylim=(len(stages) - 0.5, -0.5), xlabel="measured / limit")
    figure.legend(loc="outside upper center", ncols=4)
    return figure


@styled
def module_errors(found: Sequence[ModuleError]) -> Figure:
    """A panel a graph: the error of each module's output, in the order of the data."""
    graphs = list(dict.fromkeys(item.graph for item in found))
    figure, views = new_figure(len(graphs), 1, size=(10.5, 2.9))
    for view, graph in zip(views, graphs, strict=True):
        mine = [item for item in found if item.graph == graph]
        errors = np.array([item.error for item in mine])
        drawn = np.where(np.isfinite(errors), errors.clip(SMALLEST_ERROR), np.nan)
        view.plot(drawn, color=COLOURS[0], linewidth=1.0, marker="o", markersize=2.5)
        top = np.nanmax(drawn, initial=SMALLEST_ERROR)
        for place in np.flatnonzero(~np.isfinite(errors)):
            view.plot([place], [top], "X", color=FAILED)
        _name_groups(view, [item.module for item in mine])
        worst = int(np.where(np.isfinite(errors), errors, np.inf).argmax())
        said = f"{graph}.onnx; largest: {mine[worst].module}, {errors[worst]:.1g}"
        view.set(title=_plain(said), yscale="log", ylabel="error / norm", xlim=(-1, len(mine)))
        view.yaxis.set_minor_formatter(NullFormatter())
        view.grid(axis="y", color=GREY, alpha=0.25, linewidth=0.5)
    return figure


@styled
def similarities(found: Sequence[ScorePairs], of_split: Mapping[tuple[str, str], Sequence[Pair]]) -> Figure:
    """A row a host: its cosines against the reference's, and by how much they differ; those of a split by (host,
    backend)."""
    shown = found[:MOST_HOSTS]
    figure, views = new_figure(len(shown), 2, size=(5.2, 2.9))
    for row, pairs in enumerate(shown):
        both, apart = views[2 * row : 2 * row + 2]
        reference, here = np.array(pairs.reference), np.array(pairs.found)
        colour = COLOURS[row % len(COLOURS)]
        split = np.array(of_split.get((pairs.host, pairs.backend), ())).reshape(-1, 2)
        both.plot(split[:, 0], split[:, 1], ".", color=colour, markersize=3, alpha=0.25)
        apart.plot(split[:, 0], split[:, 1] - split[:, 0], ".", color=colour, markersize=3, alpha=0.25)
        every = np.concatenate([reference, split[:, 0]])
        ends = [every.min(), every.max()]
        both.plot(ends, ends, color=GREY, linewidth=0.8)
        both.plot(reference, here, ".", color=colour, markersize=4, alpha=0.6)
        both.set(title=_plain(f"{pairs.host} {pairs.backend}"), xlabel="cosine in PyTorch", ylabel="cosine here")
        apart.axhline(0, color=GREY, linewidth=0.8)
        apart.plot(reference, here - reference, ".", color=colour, markersize=4, alpha=0.6)
        apart.set(title="difference", xlabel="cosine in PyTorch", ylabel="here - PyTorch")
        apart.ticklabel_format(axis="y", style="sci", scilimits=(-2, 2))
    return figure


@styled
def speed_and_error(found: Sequence[Latency], errors: dict[tuple[str, str, str], float]) -> Figure:
    """A panel a graph: milliseconds an item against the worst error; `errors` by (graph, host, backend)."""
    graphs = list(dict.fromkeys(item.graph for item in found))
    hosts = list(dict.fromkeys((item.host, item.backend) for item in found))
    figure, views = new_figure(1, len(graphs), size=(5.2, 3.2))
    for view, graph in zip(views, graphs, strict=True):
        mine = [item for item in found if item.graph == graph]
        largest = max(item.batch for item in mine)
        for item in mine:
            error = errors.get((graph, item.host, item.backend), 0.0)
            mark = "o" if error <= LARGEST_ERROR else "X"
            colour = COLOURS[hosts.index((item.host, item.backend)) % len(COLOURS)]
            fill = colour if item.batch == largest else "none"
            height = min(max(error, SMALLEST_ERROR), LARGEST_ERROR)
            view.plot([item.p50_ms / item.batch], [height], mark, color=colour, markerfacecolor=fill)
        view.set(title=graph, xscale="log", yscale="log", xlabel="ms an item", ylabel="worst error")
        view.margins(0.25)
        view.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        view.xaxis.set_major_formatter("{x:g}")
        view.xaxis.set_minor_locator(NullLocator())
        view.yaxis.set_minor_formatter(NullFormatter())
        view.grid(color=GREY, alpha=0.25, linewidth=0.5)
    for place, (host, backend) in enumerate(hosts):
        views[0].plot([], [], "o", color=COLOURS[place % len(COLOURS)], label=_plain(f"{host} {backend}"))
    views[0].plot([], [], "o", color=GREY, markerfacecolor="none", linestyle="none", label="one at a time")
    figure.legend(loc="outside upper center", ncols=4)
    return figure


def _plain(name: str) -> str:
    """A name for matplotlib, which takes $ for a formula and leaves labels with a leading _ out of a legend."""
    return " " * name.startswith("_") + printable(name).replace("$", r"\$")


def _decades(summary: StageSummary) -> float:
    """Where a mark stands: decades from the limit, or one of the places on the left."""
    if summary.status == "not_run":
        return NOT_RUN
    share = share_of_limit(summary.worst)
    if share == 0:
        return NOTHING
    return HIGHEST if math.isinf(share) else float(np.clip(math.log10(share), LOWEST, HIGHEST))


def _mark(view: Axes, x: float, y: float, summary: StageSummary, colour: str) -> None:
    if summary.status == "fail":
        view.plot([max(x, 0.15)], [y], "X", color=colour, markersize=9)
    else:
        fill = "none" if summary.status == "not_run" else colour
        view.plot([x], [y], "o", color=colour, markerfacecolor=fill, markersize=6)


def _name_groups(view: Axes, modules: Sequence[str]) -> None:
    """Names of transformer blocks and stages, each where it begins."""
    places: list[int] = []
    labels: list[str] = []
    for place, module in enumerate(modules):
        label = _group(module)
        if not labels or labels[-1] != label:
            places.append(place)
            labels.append(label)
    view.set_xticks(places, [_plain(label) for label in labels], rotation=40, ha="right", fontsize=7)


def _group(module: str) -> str:
    """A block by its number, video.backbone.layer1.0.bn2 -> layer1.0; else the part that the module stands in."""
    parts = module.split(".")
    numbered = next((place for place, part in enumerate(parts) if part.isdigit()), None)
    if numbered is None:
        return parts[2] if len(parts) > 3 else parts[min(1, len(parts) - 1)]
    return ".".join(parts[max(0, numbered - 1) : numbered + 1])
