"""Figures as SVG inside a page: one style, no global state, the same bytes for the same figure."""

from __future__ import annotations

from base64 import b64encode
from io import BytesIO
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

GREY = "#808080"  # readable on a light and on a dark page
PANEL = (4.2, 2.9)  # inches
STYLE: Any = {  # any: the stubs want literal keys
    "svg.fonttype": "none",  # text stays text: small, and in the page's font
    "svg.hashsalt": "vtr",  # the same figure gives the same bytes
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "legend.fontsize": 8,
    **{f"{part}.color": GREY for part in ("text", "xtick", "ytick")},
    **{f"axes.{part}": GREY for part in ("labelcolor", "edgecolor", "titlecolor")},
}

styled = mpl.rc_context(STYLE)  # a decorator: what a function draws takes this style, nothing outside it


@styled
def svg_uri(figure: Figure) -> str:
    """A figure as a data: URI. Each is a document of its own, so that the ids of two never meet in one page."""
    buffer = BytesIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return f"data:image/svg+xml;base64,{b64encode(buffer.getvalue()).decode()}"


def new_figure(rows: int, columns: int, *, size: tuple[float, float] = PANEL) -> tuple[Figure, list[Axes]]:
    """A figure outside pyplot: no global state, no display. `size` of a panel in inches."""
    figure = Figure(figsize=(size[0] * columns, size[1] * rows), layout="constrained")
    return figure, list(figure.subplots(rows, columns, squeeze=False).flat)
