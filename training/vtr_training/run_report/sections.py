"""What the page says of a run: its results, its curves, its modality gap, its mistakes."""

from __future__ import annotations

import json

import numpy as np

from vtr_export.model.config import ModelConfig
from vtr_export.pages.figures import svg_uri
from vtr_export.pages.parts import Picture, Table
from vtr_runtime.errors import DataError

from ..data.split import Split
from . import pictures
from .confusions import Confusion, find_mistakes, show
from .embeddings import BeforeAfter
from .gap import GapFigures
from .page import Row, Section, Side
from .run_folder import Run, flat

ROWS_SHOWN = 8  # of hard negatives, and of the worst queries


def lead(run: Run) -> str:
    model, summary = run.recipe["model"], run.summary
    backbone = model["backbone"] if isinstance(model["backbone"], str) else "a backbone of its own configuration"
    heads = [f"{part} {model[part]['kind']}" for part in ("temporal", "alignment", "rerank") if part in model]
    best = f"best.pt is of step {summary['best_step']} of {summary['steps']}"
    return f"{backbone}, {model['frames']} frames; {', '.join(heads)}. {best}, chosen by {summary['metric']}."


def results(run: Run) -> Section:
    rows, groups = [], []
    for split, found in run.results.items():
        for name, key in (("text to video", "t2v"), ("video to text", "v2t")):
            numbers = found[key]
            recalls = [f"{numbers[f'R@{k}']:.1f}" for k in (1, 5, 10)]
            ranks = [f"{numbers['MdR']:g}", f"{numbers['MnR']:.1f}"]
            rsum = f"{found['Rsum']:.1f}" if key == "t2v" else ""
            rows.append([split, name, *(str(numbers[of]) for of in ("queries", "gallery")), *recalls, *ranks, rsum])
        for kind, numbers in found.get("within_groups_r1", {}).items():
            shares = [f"{100 * numbers[key]:.1f}" for key in ("t2v", "v2t", "order_blind")]
            groups.append([split, kind, str(numbers["queries"]), *shares])
    columns = ["split", "direction", "queries", "gallery", "R@1 %", "R@5 %", "R@10 %", "MdR", "MnR", "Rsum"]
    note = "best.pt was chosen on the validation split; figures on test are those to compare with other work."
    top_k = run.recipe["validation"].get("top_k")
    if top_k:
        note += f" Validation ranks the first stage's best {top_k} by the second stage."
    tables = [Table("Retrieval", columns, rows, note)]
    if groups:
        columns = ["split", "kind", "captions", "text to video %", "video to text %", "ceiling without order %"]
        note = "The gallery is the clip's own group. At or below the last column, the order of frames is not used."
        tables.append(Table("Recall at 1 within groups", columns, groups, note))
    recipe = [[key, _plain(value)] for key, value in flat(run.recipe) if value is not None]
    tables += [_size(run), _cost(run), Table("Recipe", ["key", "value"], recipe, folded=True)]
    return Section("Results", tables=tables)


def _size(run: Run) -> Table:
    counted = run.summary["parameters"]
    rows = [[part, f"{number:,}"] for part, number in counted["by_part"].items()]
    rows += [["total", f"{counted['total']:,}"], ["trained", f"{counted['trained']:,}"]]
    return Table("Parameters", ["part", "parameters"], rows)


def _cost(run: Run) -> Table:
    summary = run.summary
    memory = summary.get("peak_memory_bytes")
    rows = [
        ["time per step", f"{summary['seconds_per_step']:.3f} s"],
        ["peak memory", "-" if memory is None else f"{memory / 2**30:.2f} GiB"],
        ["device", str(summary["device"])],
        ["clips that could not be read", str(summary["skipped"])],
    ]
    return Table("Training", ["what", "value"], rows)


def curves(run: Run) -> Section:
    figure = pictures.curves(run.log, run.summary["best_step"])
    if figure is None:
        return Section("Training curves", "log.jsonl holds no line.")
    note = (
        "The dotted line is the step of best.pt. The loss should fall and level off; peaks of the gradient norm that "
        "the loss follows point to a rate that is too high. Validation that falls while the loss still does is "
        "overfitting."
    )
    alt = "curves over the steps: loss and its terms, gradient norm, rate, validation metrics"
    return Section("Training curves", pictures=[Picture(svg_uri(figure), alt, note)])


def alignment(embedded: BeforeAfter, figures: GapFigures, config: ModelConfig, split: str) -> Section:
    matched = embedded.owners[:, None] == np.arange(len(embedded.video_after))
    panels, unmatched = {}, {}
    for when, scores in (("before", embedded.scores_before), ("after", embedded.scores_after)):
        panels[f"{when} alignment"] = scores[matched], scores[~matched]
        unmatched[when] = float(scores[~matched].mean()) if (~matched).any() else None
    note = f"Split {split}, {len(embedded.text_after)} captions and {len(embedded.video_after)} clips, first stage."
    if config.alignment.kind == "none":
        note += " This model has no alignment head: before and after are the same."
    likeness = Picture(
        svg_uri(pictures.similarities(panels)),
        "histograms of the cosines of matched and unmatched pairs, before and after alignment",
        "The less the two histograms overlap, the better a caption finds its clip. Alignment that moves both alike "
        "changes the gap and not the ranking.",
    )
    gap = Picture(
        svg_uri(pictures.gap(figures)),
        "histograms of the L2 norm of the modality gap and of the change of cosine by alignment",
        "Left: the gap v - t of matched pairs should be shorter after alignment. Right: pairs left of the dotted line "
        "were moved apart.",
    )
    return Section("Similarity and modality gap", note, [_gap_table(figures, unmatched)], [likeness, gap])


def _gap_table(figures: GapFigures, unmatched: dict[str, float | None]) -> Table:
    found = figures.to_json()
    rows = []
    for when in ("before", "after"):
        values = (*found[when].values(), unmatched[when])
        rows.append([f"{when} alignment", *("-" if value is None else f"{value:.4f}" for value in values)])
    change = found["change_of_similarity"]
    note = (
        f"Over {found['pairs']} matched pairs. Alignment changes a pair's cosine by {change['min']:+.4f} to "
        f"{change['max']:+.4f}, on average {change['mean']:+.4f}. A mean gap as long as the single gaps is a shift "
        "that all pairs share; a short one means that each pair has a gap of its own."
    )
    columns = [
        "",
        "mean L1 norm",
        "mean L2 norm",
        "norm of the mean gap",
        "mean matched cosine",
        "mean unmatched cosine",
    ]
    return Table("Gap v - t of unit vectors", columns, rows, note)


def mistakes(embedded: BeforeAfter, split: Split, name: str) -> tuple[Section, ...]:
    frames, owners = split.frames, split.owners
    try:
        mistakes = find_mistakes(embedded.scores_after, owners, split.videos)
    except DataError as error:
        return (Section("Hard negatives", f"{error}."),)
    hard = show(mistakes, mistakes.by_hardness(), frames, owners, ROWS_SHOWN)
    worst = show(mistakes, mistakes.by_rank(), frames, owners, ROWS_SHOWN)
    total, count = len(owners), int((mistakes.hardness > 0).sum())
    common = "Left the caption's own clip, right the wrong clip that scores best: first, middle and last frame each."
    return (
        Section(
            "Mined hard negatives",
            f"Split {name}: {count} of {total} captions have a hard negative as NegNCE mines them (d > 0: the wrong "
            "clip beats the right one, or beats what its own captions reach). Shown are those furthest ahead of the "
            f"right clip, one a clip. {common} Look for what tells the two apart, and whether the caption says it.",
            rows=[_row(item, f"wrong clip ahead by {-item.margin:+.3f}, d {item.hardness:.3f}") for item in hard],
        ),
        Section(
            "Worst queries",
            f"The captions whose own clip has the largest rank among {len(frames.clips)} clips, one a clip. {common} A "
            "caption that fits many clips, or not its own, is a fault of the data.",
            rows=[_row(item, f"rank {item.rank:g} of {len(frames.clips)}") for item in worst],
        ),
    )


def _row(item: Confusion, measure: str) -> Row:
    return Row(
        measure,
        Side(
            pictures.strip_uri(item.right_frames),
            f"right, cosine {item.right_score:.3f}, {item.right.video.name}",
            [item.caption],
        ),
        Side(
            pictures.strip_uri(item.wrong_frames),
            f"wrong, cosine {item.wrong_score:.3f}, {item.wrong.video.name}",
            item.wrong.captions[:2],
        ),
    )


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
