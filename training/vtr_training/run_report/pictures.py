"""The figures of a report: drawn with matplotlib, kept as SVG inside a page or as a PNG file."""

from __future__ import annotations

import math
import textwrap
from base64 import b64encode
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from vtr_export.pages.figures import GREY, new_figure, styled
from vtr_runtime.console import printable
from vtr_runtime.publish import staged_file

from .confusions import Confusion
from .gap import GapFigures

BEFORE, AFTER, UNMATCHED = "#d9822b", "#2d7fc1", "#999999"
SIDE, SEAM = 112, 2  # pixels of a frame, and between frames
BINS = 60  # at most


def strip_uri(frames: NDArray[np.uint8]) -> str:
    """Frames uint8 [n, S, S, 3] side by side, as a data: URI of a JPEG."""
    buffer = BytesIO()
    strip(frames).save(buffer, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{b64encode(buffer.getvalue()).decode()}"


def strip(frames: NDArray[np.uint8]) -> Image.Image:
    """Frames uint8 [n, S, S, 3] side by side, each SIDE pixels wide."""
    sheet = Image.new("RGB", (len(frames) * (SIDE + SEAM) - SEAM, SIDE), "white")
    for i, frame in enumerate(frames):
        sheet.paste(Image.fromarray(frame).resize((SIDE, SIDE), Image.Resampling.BICUBIC), (i * (SIDE + SEAM), 0))
    return sheet


@styled
def curves(log: Sequence[dict[str, Any]], best_step: int) -> Figure | None:
    """Loss and its terms, gradient norm, learning rate and validation metrics over steps; None for an empty log."""
    panels = [panel for panel in _curve_panels(log) if panel[1]]
    if not panels:
        return None
    rows = -(-len(panels) // 3)
    figure, axes = new_figure(rows, min(3, len(panels)))
    for view, (title, lines) in zip(axes, panels, strict=False):
        for name, (steps, values) in lines.items():
            view.plot(steps, values, label=name, linewidth=1.3, marker="o" if len(steps) < 30 else None, markersize=2.5)
        view.axvline(best_step, color=GREY, linewidth=0.8, linestyle=":")
        view.set(title=title, xlabel="step")
        if len(lines) > 1:
            view.legend()
    for view in axes[len(panels) :]:
        view.set_axis_off()
    return figure


@styled
def similarities(panels: dict[str, tuple[NDArray[np.floating[Any]], NDArray[np.floating[Any]]]]) -> Figure:
    """Histograms of cosines: a panel's title -> those of matched and those of unmatched pairs."""
    figure, axes = new_figure(1, len(panels))
    edges = _edges([values for pair in panels.values() for values in pair])
    for view, (title, (matched, unmatched)) in zip(axes, panels.items(), strict=True):
        _histogram(view, unmatched, edges, UNMATCHED, "unmatched pairs")
        _histogram(view, matched, edges, AFTER, "matched pairs")
        view.set(title=title, xlabel="cosine", ylabel="share of pairs, %")
        view.legend()
    return figure


@styled
def gap(figures: GapFigures) -> Figure:
    """Figures 3 to 5 of DITS: L2 norms of the gaps of matched pairs, and what alignment adds to their cosines."""
    figure, (norms, change) = new_figure(1, 2)
    edges = _edges([figures.before.l2, figures.after.l2])
    _histogram(norms, figures.before.l2, edges, BEFORE, "before alignment")
    _histogram(norms, figures.after.l2, edges, AFTER, "after alignment")
    norms.set(title="L2 norm of the gap v - t", xlabel="norm", ylabel="share of matched pairs, %")
    norms.legend()
    _histogram(change, figures.change, _edges([figures.change]), AFTER, "")
    change.axvline(0, color=GREY, linewidth=0.8, linestyle=":")
    change.set(title="change of a pair's cosine by alignment", xlabel="after - before", ylabel="share of pairs, %")
    return figure


def draw_gap(figures: GapFigures, path: Path) -> None:
    """`gap` as a PNG file."""
    _save(gap(figures), path)


@styled
def draw_hard_negatives(confusions: Sequence[Confusion], path: Path) -> None:
    """A PNG file: a row each; left the caption and its own clip, right the wrong clip that scores best, cosines above.

    `confusions` holds at least one."""
    figure = Figure(figsize=(9, 1.9 * len(confusions)), layout="constrained")
    cells = figure.subplots(len(confusions), 2, squeeze=False)
    for (left, right), item in zip(cells, confusions, strict=True):
        _clip(left, item.right_frames, f"right {item.right_score:.3f} “{item.caption}”")
        _clip(right, item.wrong_frames, f"wrong {item.wrong_score:.3f} “{item.wrong.captions[0]}”")
    _save(figure, path)


def _curve_panels(log: Sequence[dict[str, Any]]) -> list[tuple[str, dict[str, tuple[list[int], list[float]]]]]:
    def lines(kind: str, names: dict[str, str], scale: float = 1.0) -> dict[str, tuple[list[int], list[float]]]:
        found = {}
        for key, label in names.items():
            entries = [entry for entry in log if entry["kind"] == kind and entry.get(key) is not None]
            if entries:
                found[label] = [entry["step"] for entry in entries], [scale * entry[key] for entry in entries]
        return found

    keys = dict.fromkeys(key for entry in log for key in entry)
    terms = {key: key.removeprefix("loss_") for key in keys if key.startswith("loss_")}
    groups = {key: key.removeprefix("group_r1_") for key in keys if key.startswith("group_r1_")}
    recalls = {"t2v_r1": "text to video", "v2t_r1": "video to text"}
    second = {f"second_{key}": f"{label}, second stage" for key, label in recalls.items()}
    return [
        ("loss", lines("train", {"loss": "total", **terms})),
        ("gradient norm", lines("train", {"grad_norm": "norm"})),
        ("learning rate, share of its peak", lines("train", {"rate": "rate"})),
        ("validation R@1, %", lines("val", recalls | second)),
        ("validation Rsum, %", lines("val", {"rsum": "first stage", "second_rsum": "second stage"})),
        ("R@1 within groups, text to video, %", lines("val", groups, 100.0)),
    ]


def _edges(samples: Sequence[NDArray[np.floating[Any]]]) -> NDArray[np.float64]:
    """Shared bins for samples that are to be compared; of some width also where all values are one."""
    low, high = min(values.min() for values in samples), max(values.max() for values in samples)
    room = max(1e-3, 0.02 * (high - low))
    bins = min(BINS, max(8, round(2 * math.sqrt(min(map(len, samples))))))  # few pairs: wide bins
    return np.linspace(low - room, high + room, bins + 1)


def _histogram(
    view: Axes, values: NDArray[np.floating[Any]], edges: NDArray[np.float64], colour: str, label: str
) -> None:
    counts, _ = np.histogram(values, edges)
    view.stairs(100 * counts / len(values), edges, fill=True, alpha=0.35, color=colour)
    view.stairs(100 * counts / len(values), edges, color=colour, linewidth=1.2, label=label)


def _clip(view: Axes, frames: NDArray[np.uint8], title: str) -> None:
    view.imshow(np.asarray(strip(frames)))
    view.set_axis_off()
    text = textwrap.shorten(printable(title), 130, placeholder=" …")
    # A caption is no formula: a $ in it is a dollar.
    view.set_title(textwrap.fill(text, 62), fontsize=8, loc="left", color="#202020", parse_math=False)


@styled
def _save(figure: Figure, path: Path) -> None:
    with staged_file(path) as staged:
        figure.savefig(staged, format="png", dpi=150, facecolor="white")
