"""`vtr-train evaluate`: embed a split with a checkpoint or a bundle, rank it, print it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vtr_runtime.console import note, table

from .data.jsonl import read_clips
from .embed import embed_with_bundle, embed_with_checkpoint
from .evaluate import Evaluation, evaluate_embeddings


@dataclass(frozen=True)
class Report:
    model: Path
    data: str
    split: str
    evaluation: Evaluation
    unreadable: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        head = {"model": str(self.model), "data": self.data, "split": self.split, "unreadable": list(self.unreadable)}
        return {**head, **self.evaluation.to_json()}


def evaluate_model(model: Path, data: str, split: str) -> Report:
    """`model` is a checkpoint file or a bundle folder. Unreadable clips are left out and listed."""
    embed = embed_with_bundle if model.is_dir() else embed_with_checkpoint
    found = embed(model, read_clips(data, split))
    for sentence in found.unreadable:
        note(f"skipped: {sentence}")
    evaluation = evaluate_embeddings(found.clips, found.video, found.text, found.owners)
    return Report(model, data, split, evaluation, found.unreadable)


def print_report(report: Report) -> None:
    """Tables on standard output."""
    evaluation = report.evaluation
    columns = ["direction", "queries", "gallery", "R@1 %", "R@5 %", "R@10 %", "MdR", "MnR"]
    rows = []
    for name, found in (("text to video", evaluation.retrieval.t2v), ("video to text", evaluation.retrieval.v2t)):
        recalls = [f"{value:.1f}" for value in found.recall.values()]
        rows.append([name, found.queries, found.gallery, *recalls, f"{found.median_rank:g}", f"{found.mean_rank:.1f}"])
    table(f"{report.model} on {report.data}, {report.split}: Rsum {evaluation.retrieval.rsum:.1f}", columns, rows)
    if evaluation.groups:
        table(
            "Within groups: recall at 1 when the gallery is the clip's own group",
            ["kind", "captions", "text to video", "video to text", "ceiling without order"],
            [
                [group.kind, group.queries, f"{group.t2v_r1:.2f}", f"{group.v2t_r1:.2f}", f"{group.order_blind:.2f}"]
                for group in evaluation.groups
            ],
        )
