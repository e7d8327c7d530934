"""What the page and the line in the README say of a split that was ranked."""

from __future__ import annotations

from collections.abc import Sequence

from vtr_export.pages.parts import Table

from ..results import REFERENCE, Retrieval


def r1_change(entry: Retrieval) -> float:
    """Points of R@1, text to video, that a host has more than PyTorch."""
    return entry.recall["R@1"] - entry.reference_recall["R@1"]


def r1_words(entry: Retrieval) -> str:
    here, there = entry.recall["R@1"], entry.reference_recall["R@1"]
    return f"{entry.host} {entry.backend} R@1 {here:.1f} (PyTorch {there:.1f}) of {entry.texts} texts"


def recall_table(entries: Sequence[Retrieval]) -> Table:
    first = entries[0]
    names = list(first.recall)
    rows = [[REFERENCE, *(f"{first.reference_recall[name]:.1f}" for name in names), f"{first.reference_median_rank:g}"]]
    for entry in entries:
        pairs = [(entry.recall[name], entry.reference_recall[name]) for name in names]
        recalls = (f"{here:.1f} ({here - there:+.1f})" for here, there in pairs)
        rows.append([f"{entry.host} {entry.backend} {entry.precision}", *recalls, f"{entry.median_rank:g}"])
    title = f"{first.split}: {first.texts} texts, {first.videos} videos, {first.unreadable} unreadable"
    note = "" if first.meaningful else "PyTorch itself retrieves too little here for this to mean much."
    return Table(title, ["text to video", *(f"{name} %" for name in names), "median rank"], rows, note)


def change_table(entries: Sequence[Retrieval]) -> Table:
    columns = ["host", "same ranking", "other first ten", "other first video", "of them outside the noise"]
    columns += ["largest flip", "noise"]
    rows = []
    for entry in entries:
        flip = f"{entry.largest_flip:.2g}" if entry.flips else ""
        counts = (f"{entry.identical} of {entry.texts}", entry.top10_changed, entry.flips, entry.flips_outside)
        rows.append([f"{entry.host} {entry.backend}", *map(str, counts), flip, f"{entry.noise:.2g}"])
    note = (
        "Queries whose ranking changed. A flip is a query whose first video is another one; its size is by how much "
        "PyTorch prefers its own. Within the noise, errors of the measured size can swap two videos: that is told and "
        "not failed."
    )
    return Table("Rank changes", columns, rows, note)
