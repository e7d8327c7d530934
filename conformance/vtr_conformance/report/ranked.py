"""What the page and the line in the README say of a split that was ranked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vtr_export.pages.parts import Table
from vtr_runtime.console import printable

from ..results import REFERENCE, Direction, Retrieval

TEXT_TO_VIDEO, VIDEO_TO_TEXT = "text to video", "video to text"


def r1_change(entry: Retrieval) -> float:
    """Points of R@1, text to video, that a host has more than PyTorch."""
    return entry.t2v.figures["R@1"] - entry.t2v.reference["R@1"]


def r1_words(entry: Retrieval) -> str:
    here, there = entry.t2v.figures["R@1"], entry.t2v.reference["R@1"]
    return f"{entry.host} {entry.backend} R@1 {here:.1f} (PyTorch {there:.1f}) of {entry.texts} texts"


def figures_table(entries: Sequence[Retrieval]) -> Table:
    """R@K, MdR, MnR and Rsum of both ways, PyTorch first."""
    first = entries[0]
    rows = []
    for way, of in _ways(first):
        there = (f"{value:.4g}" for value in of.reference.values())
        rows.append([way, REFERENCE, *there, f"{first.reference_rsum:.1f}"])
        for entry in entries:
            mine = dict(_ways(entry))[way]
            here = (f"{value:.4g} ({value - mine.reference[name]:+.3g})" for name, value in mine.figures.items())
            rsum = f"{entry.rsum:.1f} ({entry.rsum - entry.reference_rsum:+.1f})"
            rows.append([way, f"{entry.host} {entry.backend} {entry.precision}", *here, rsum])
    title = f"{first.data}:{first.split}: {first.texts} texts, {first.videos} videos, {first.unreadable} unreadable"
    note = "" if first.meaningful else "PyTorch itself retrieves too little here for this to mean much."
    return Table(printable(title), ["way", "host", *first.t2v.figures, "Rsum, both ways"], rows, note)


def change_table(entries: Sequence[Retrieval]) -> Table:
    columns = ["host", "way", "same ranking", "other first", "of them outside", "largest flip", "other first ten"]
    columns += ["of them outside", "Kendall's tau: mean", "worst", "noise"]
    rows = []
    for entry in entries:
        for way, found in _ways(entry):
            flip = f"{found.largest_flip:.2g}" if found.flips else ""
            tau = ("" if value is None else f"{value:.4f}" for value in (found.tau, found.worst_tau))
            counts = (found.flips, found.flips_outside, flip, found.top10_changed, found.top10_outside)
            same = f"{found.identical} of {found.queries}"
            rows.append([f"{entry.host} {entry.backend}", way, same, *map(str, counts), *tau, f"{entry.noise:.2g}"])
    note = (
        "A flip is a query whose first item is another one; its size is by how much PyTorch prefers its own. Within "
        "the noise, errors of the measured size can swap two items: that is told and not failed. Kendall's tau is of "
        "PyTorch's first hundred; 1 is the same order."
    )
    return Table("Rank changes", columns, rows, note)


def worst_table(entries: Sequence[Retrieval]) -> Table | None:
    """The query of each host and way whose first item changed most, with both candidates; None where none changed."""
    rows = []
    for entry in entries:
        for way, found in _ways(entry):
            if (worst := found.worst) is None:
                continue
            both = zip((worst.reference_best, worst.host_best), worst.reference_scores, worst.host_scores, strict=True)
            told = [f"{item} ({there:.5f}, here {here:.5f})" for item, there, here in both]
            rows.append([printable(cell) for cell in (f"{entry.host} {entry.backend}", way, worst.query, *told)])
    columns = ["host", "way", "query", "first in PyTorch (its score there, here)", "first here"]
    return Table("The worst query", columns, rows) if rows else None


def _ways(entry: Retrieval) -> Iterator[tuple[str, Direction]]:
    yield TEXT_TO_VIDEO, entry.t2v
    yield VIDEO_TO_TEXT, entry.v2t
