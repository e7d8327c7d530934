"""What the page and the line in the README say of a split that was ranked."""

from __future__ import annotations

from collections.abc import Sequence

from vtr_export.pages.parts import Table
from vtr_runtime.console import printable

from ..results import REFERENCE, Direction, Retrieval


def r1_change(entry: Retrieval) -> float:
    """Points of R@1, text to video, that a host has more than PyTorch."""
    return entry.t2v.figures["R@1"] - entry.t2v.reference["R@1"]


def r1_words(entry: Retrieval) -> str:
    here, there = entry.t2v.figures["R@1"], entry.t2v.reference["R@1"]
    return f"{entry.host} {entry.backend} R@1 {here:.1f} (PyTorch {there:.1f}) of {entry.texts} texts"


def recall_table(entries: Sequence[Retrieval]) -> Table:
    """The figures of one split in both directions: PyTorch's, then each host's."""
    first = entries[0]
    names = list(first.t2v.figures)
    rows = []
    for way, reference in _ways(first):
        rows.append([way, REFERENCE, *(f"{reference.reference[name]:.4g}" for name in names)])
        for entry in entries:
            found = dict(_ways(entry))[way]
            pairs = [(found.figures[name], found.reference[name]) for name in names]
            moved = (f"{here:.4g} ({here - there:+.2g})" for here, there in pairs)
            rows.append([way, f"{entry.host} {entry.backend} {entry.precision}", *moved])
    title = f"{first.data}:{first.split}: {first.texts} texts, {first.videos} videos, {first.unreadable} unreadable"
    note = "" if first.meaningful else "PyTorch itself retrieves too little here for this to mean much."
    return Table(printable(title), ["way", "host", *names], rows, note)


def change_table(entries: Sequence[Retrieval]) -> Table:
    """How many queries are ranked otherwise, and how far from a tie those are."""
    columns = ["host", "way", "same ranking", "other first", "outside the noise", "largest flip"]
    columns += ["other ten", "outside the noise", "largest change", "tau, mean", "tau, worst", "noise"]
    rows = []
    for entry in entries:
        for way, found in _ways(entry):
            first = (str(found.flips), str(found.flips_outside), _number(found.largest_flip if found.flips else None))
            largest = _number(found.largest_top10 if found.top10_changed else None)
            ten = (str(found.top10_changed), str(found.top10_outside), largest)
            tau = ("" if value is None else f"{value:.4f}" for value in (found.tau, found.worst_tau))
            same = f"{found.identical} of {found.queries}"
            rows.append([f"{entry.host} {entry.backend}", way, same, *first, *ten, *tau, f"{entry.noise:.2g}"])
    note = (
        "Queries whose ranking changed. A flip is a query whose first item is another one; its size is by how much "
        "PyTorch prefers its own. Within the noise, errors of the measured size can swap two items: that is told and "
        "not failed. Tau is Kendall's, of PyTorch's first hundred."
    )
    return Table("Rank changes", columns, rows, note)


def worst_table(entries: Sequence[Retrieval]) -> Table | None:
    """The query of each host and direction that changed most, with its two candidates; None where none changed."""
    rows = []
    for entry in entries:
        for way, found in _ways(entry):
            if (worst := found.worst) is None:
                continue
            for place, item in enumerate((worst.reference_best, worst.host_best)):
                scores = (f"{worst.reference_scores[place]:.6f}", f"{worst.host_scores[place]:.6f}")
                whose = (f"{entry.host} {entry.backend}", REFERENCE)[place == 0]
                rows.append([f"{entry.host} {entry.backend}", way, worst.query, whose, item, *scores])
    columns = ["host", "way", "query", "first on", "candidate", "score in PyTorch", "score here"]
    shown = [[printable(cell) for cell in row] for row in rows]
    return Table("Worst queries, each with its two candidates", columns, shown) if rows else None


def _ways(entry: Retrieval) -> tuple[tuple[str, Direction], ...]:
    return (("text to video", entry.t2v), ("video to text", entry.v2t))


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2g}"
