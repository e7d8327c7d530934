"""A split's rankings at a terminal: figures of both directions, what changed, the worst query."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vtr_runtime.console import printable, table

from ..results import REFERENCE, Direction, Retrieval, WorstQuery

CHANGES = (
    "against PyTorch",
    "other first",
    "outside",
    "largest margin",
    "other ten",
    "outside",
    "largest margin",
    "same ranking",
    "tau",
    "worst",
)
# Clips that are named at a terminal; the report has them all.
NAMED = 10


def print_retrieval(entry: Retrieval) -> None:
    """The figures, what changed, and the worst query of each direction that has one."""
    ways = (("text to video", entry.t2v), ("video to text", entry.v2t))
    host = f"{entry.host} {entry.backend} {entry.precision}"
    title = (
        f"retrieval on {entry.data}:{entry.split}: {entry.videos} videos, {entry.texts} texts, "
        f"{entry.unreadable} unreadable; Rsum {entry.rsum:.1f} ({entry.rsum - entry.reference_rsum:+.1f})"
    )
    columns = ("", *entry.t2v.figures)
    table(title + ("" if entry.meaningful else ": too near chance to mean much"), columns, _figures(host, ways))
    outside = f"what changed; outside: what the reference holds more than {entry.noise:.2g} apart"
    table(outside, CHANGES, [_changes(way, found) for way, found in ways])
    for way, found in ways:
        if found.worst is not None:
            print("\n".join(worst_lines(way, entry.host, found.worst)))


def worst_lines(way: str, host: str, worst: WorstQuery) -> Iterator[str]:
    """The query, and its two candidates with both scores on both sides."""
    yield printable(f"worst query, {way}: {worst.query!r}")
    for place, (whose, item) in enumerate(((REFERENCE, worst.reference_best), (host, worst.host_best))):
        scores = f"{REFERENCE} {worst.reference_scores[place]:.6f}, {host} {worst.host_scores[place]:.6f}"
        yield printable(f"  first on {whose}: {item!r} ({scores})")


def left_out_lines(left_out: Sequence[str]) -> Iterator[str]:
    """A line for each of the first clips that cannot be read."""
    for sentence in left_out[:NAMED]:
        yield printable(f"left out: {sentence}")
    if len(left_out) > NAMED:
        yield f"left out: {len(left_out) - NAMED} more, which --report names"


def _figures(host: str, ways: Sequence[tuple[str, Direction]]) -> Iterator[Sequence[object]]:
    for way, found in ways:
        yield (f"{way}, {REFERENCE}", *(f"{value:.4g}" for value in found.reference.values()))
        now = (f"{value:.4g} ({value - found.reference[name]:+.3g})" for name, value in found.figures.items())
        yield (f"{way}, {host}", *now)


def _changes(way: str, found: Direction) -> Sequence[object]:
    first = (found.flips, found.flips_outside, f"{found.largest_flip:.2g}")
    ten = (found.top10_changed, found.top10_outside, f"{found.largest_top10:.2g}")
    tau = ("" if value is None else f"{value:.4f}" for value in (found.tau, found.worst_tau))
    return (way, *first, *ten, f"{found.identical} of {found.queries}", *tau)
