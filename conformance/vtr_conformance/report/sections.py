"""The sections of the page between the overview and the table of all results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vtr_export.pages.figures import svg_uri
from vtr_export.pages.parts import Picture, Table
from vtr_runtime.console import printable
from vtr_runtime.machine import machine_lines

from ..details.records import MAX_PAIRS, Details, GraphOperators, changed_kinds
from ..results import Report, Retrieval
from . import plots
from .ranked import change_table, r1_change, recall_table, worst_table
from .summary import StageSummary

# The stage whose error stands for a graph's quality.
JUDGED_BY = {"text": "aligned", "video": "video_embedding"}

ZERO = f"Zero is drawn at {plots.SMALLEST_ERROR:g}."
MANY_KINDS = 12  # of operators in a table: beyond, it is folded


@dataclass(frozen=True)
class Section:
    title: str
    note: str = ""
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()


def overview(found: Sequence[StageSummary]) -> Picture:
    note = (
        "Every stage is fed with the reference's own output of the stage before it. Left of the red line is within the "
        "limit; X failed, a ring was not run. Stages that must agree exactly show no difference, or X."
    )
    return Picture(svg_uri(plots.stage_errors(found)), "measured over limit for each stage and host", note)


def all_sections(report: Report) -> list[Section | None]:
    details = report.details
    shown: list[Section | None] = [retrieval(report.retrieval, report.left_out)]
    if details is None:
        return shown
    return [modules(details), similarities(report, details), *shown, speed(report, details), operators(details)]


def modules(details: Details) -> Section | None:
    if not details.modules:
        return None
    note = (
        "Each graph ran node by node in its own types and, side by side, with every float in float64, on golden "
        "inputs. A point is the error of a module's output over its norm; where the line jumps, rounding comes in. "
        "Some 1e-7 is usual for fp32, 1e-3 for fp16, 1e-2 for bf16. Differences of frames that are nearly alike are "
        "small numbers from large ones: an error there is large of its own norm and small of what it is added to."
    )
    rows = [[m.graph, m.module, f"{m.error:.2g}", str(m.operators)] for m in details.modules]
    table = Table("Every module", ["graph", "module", "error / norm", "operators"], rows, folded=True)
    alt = "error of each module's output, in the order of the data"
    picture = Picture(svg_uri(plots.module_errors(details.modules)), alt, ZERO)
    return Section("Where rounding comes in: error by PyTorch module", note, [table], [picture])


def similarities(report: Report, details: Details) -> Section | None:
    pairs = [entry for entry in details.scores if entry.reference]
    if not pairs:
        return None
    of_split = {(entry.host, entry.backend): entry.pairs[:MAX_PAIRS] for entry in report.retrieval}
    note = (
        "Cosines of the golden captions with the golden clips"
        + (", paler those of the split" if any(of_split.values()) else "")
        + ": on the left, points off the line are pairs that are scored otherwise than in PyTorch; on the right by how "
        "much."
    )
    picture = Picture(svg_uri(plots.similarities(pairs, of_split)), "cosines here against cosines in PyTorch", "")
    return Section("Similarities: PyTorch against each host", note, pictures=[picture])


def retrieval(found: Sequence[Retrieval], left_out: Sequence[str]) -> Section | None:
    if not found:
        return None
    splits: dict[str, list[Retrieval]] = {}
    for entry in found:
        splits.setdefault(f"{entry.data}:{entry.split}", []).append(entry)
    tables = []
    for entries in splits.values():
        tables += [recall_table(entries), change_table(entries)]
        tables += [worst] if (worst := worst_table(entries)) else []
    if left_out:
        rows = [[printable(sentence)] for sentence in left_out]
        tables.append(Table(f"{len(left_out)} clips that were left out", ["why"], rows, folded=True))
    note = "The whole split, embedded by PyTorch and by each host: the same videos must be found."
    return Section("Retrieval and rank changes", note, tables)


def speed(report: Report, details: Details) -> Section | None:
    if not details.latencies:
        return None
    worst = _worst_errors(report)
    lost = {(entry.host, entry.backend): r1_change(entry) for entry in report.retrieval}
    rows = []
    for item in details.latencies:
        on = (item.host, item.backend)
        error = worst.get((item.graph, *on))
        rows.append(
            [
                f"{item.host} {item.backend} {item.precision}",
                item.graph,
                str(item.batch),
                f"{item.p50_ms:.3g}",
                f"{item.p50_ms / item.batch:.3g}",
                str(item.times),
                "" if error is None else f"{error:.2g}",
                f"{lost[on]:+.1f}" if on in lost else "",
            ]
        )
    columns = ["host", "graph", "batch", "median ms", "ms an item", "timed", "worst error", "R@1 change"]
    note = (
        "No benchmark: a few calls each, beside whatever else the machine was doing, engines only, without decoding. "
        "The error is the largest of the graph's embeddings, in the stage's unit."
    )
    picture = Picture(
        svg_uri(plots.speed_and_error(details.latencies, worst)),
        "milliseconds an item against the worst error",
        f"Down and left is better. Filled: the larger batch. {ZERO}",
    )
    return Section("Speed beside quality", note, [Table("Median of one call", columns, rows)], [picture])


def operators(details: Details) -> Section | None:
    if not details.operators:
        return None
    tables = []
    for item in details.operators:
        changed = [] if item.rewritten is None else changed_kinds(item.exported, item.rewritten)
        after = "" if item.rewritten is None else str(sum(item.rewritten.values()))
        rows = [["all", str(sum(item.exported.values())), after]]
        rows += [[kind, str(before), str(now)] for kind, before, now in changed]
        columns = ["operator", "as exported", "as ONNX Runtime runs it"]
        many = len(changed) > MANY_KINDS
        title = f"{item.graph}.onnx" + (f": {len(changed)} kinds of operators differ" if many else "")
        tables.append(Table(title, columns, rows, note=_in_one_piece(item), folded=many))
    note = (
        "What the exporter kept in one piece, and which operators ONNX Runtime fuses or adds when it loads the graph "
        "for this CPU."
    )
    return Section("Fused operators", note, tables)


def about(report: Report) -> Table | None:
    if report.details is None:
        return None
    about = report.details.about
    made = ", ".join(f"{name} {version}" for name, version in about.made_with.items())
    rows = [
        ["bundle", f"{about.model}, {about.precision}"],
        ["space", about.space],
        ["variant", about.variant],
        ["sha256 of manifest.json", about.manifest_sha256],
        ["made with", made],
        ["checked", about.date],
        ["on", "; ".join(machine_lines(about.machine))],
        *([["command", about.command]] if about.command else []),
        *(["not measured", note] for note in report.details.notes),
    ]
    return Table("About this report", ["what", "value"], [[what, printable(value)] for what, value in rows])


def _worst_errors(report: Report) -> dict[tuple[str, str, str], float]:
    """The largest error of a graph's embeddings, by (graph, host, backend)."""
    worst: dict[tuple[str, str, str], float] = {}
    for graph, stage in JUDGED_BY.items():
        for result in report.results:
            if result.stage == stage and result.measured is not None:
                key = (graph, result.host, result.backend)
                worst[key] = max(worst.get(key, 0.0), result.measured)
    return worst


def _in_one_piece(item: GraphOperators) -> str:
    kinds = [kind for kind in item.found if item.found[kind] or (item.expected or {}).get(kind)]
    if not kinds:
        return ""
    of = {kind: f" of {item.expected[kind]}" if item.expected is not None else "" for kind in kinds}
    return "In one piece: " + ", ".join(f"{kind} {item.found[kind]}{of[kind]}" for kind in kinds) + "."
