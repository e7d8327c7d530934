"""`vtr-train evaluate`: embed a split with a checkpoint or a bundle, rank it, print it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click
import torch

from vtr_export.model.checkpoint import load_checkpoint
from vtr_export.model.retrieval import RetrievalModel
from vtr_runtime.console import table
from vtr_runtime.errors import ConfigError, OutputExistsError
from vtr_runtime.metrics import Direction
from vtr_runtime.publish import check_output, staged_file

from .data.frame_cache import tell_skipped
from .data.source import read_clips
from .data.split import caption_rows
from .embed import EmbeddedSplit, embed_captions, embed_with_runtime, embed_with_torch
from .evaluate import Evaluation
from .leak_check import DEFAULT_TOP_K, LeakCheck, check_leak
from .per_query import write_per_query
from .rankings import Ranking, choose_bank, dsl_ranking, qb_ranking, raw_ranking
from .second_stage import second_stage_ranking, second_stage_scores, top_pairs

if TYPE_CHECKING:
    from vtr_runtime import Model

Post = Literal["none", "dsl", "qb-norm"]

DIRECTIONS = {
    "t2v": "text to video",
    "v2t": "video to text, best caption",
    "v2t_caption_groups": "video to text, caption groups",
}
SHOWN_TIES = 0.05  # points or places between all ties won and all lost, from which on both are shown


@dataclass(frozen=True)
class Rescored:
    """The evaluation of scores that were changed afterwards; see rankings.py for the names."""

    name: str
    title: str
    evaluation: Evaluation


@dataclass(frozen=True)
class Report:
    model: Path
    data: str
    split: str
    evaluation: Evaluation
    unreadable: tuple[str, ...]
    rescored: tuple[Rescored, ...] = ()
    leak: LeakCheck | None = None  # None: not asked for

    def to_json(self) -> dict[str, Any]:
        head = {"model": str(self.model), "data": self.data, "split": self.split, "unreadable": list(self.unreadable)}
        result = {**head, **self.evaluation.to_json()}
        if self.rescored:
            result["rescored"] = {one.name: {"title": one.title, **one.evaluation.to_json()} for one in self.rescored}
        if self.leak is not None:
            result["leak_check"] = self.leak.to_json()
        return result


def evaluate_model(
    model: Path,
    data: str,
    split: str,
    *,
    post: Post = "none",
    top_k: int | None = None,
    per_query: Path | None = None,
    leak_check: bool = False,
) -> Report:
    """`model` is a checkpoint file, a bundle folder, or a run's folder: then its best.pt, and the result is kept beside
    it as SPLIT.json. Unreadable clips are left out and listed. `per_query` is written, see per_query.py.

    Raises ConfigError for what the model or the split cannot do, before anything is embedded."""
    run = model if (model / "best.pt").is_file() else None
    source = _open(model if run is None else model / "best.pt")
    reranks = isinstance(source, RetrievalModel) and source.rerank is not None
    _refuse(source, split, post, top_k, per_query)
    found = _embed(source, read_clips(data, split), tokens=reranks and (leak_check or top_k is not None))
    tell_skipped(found.unreadable)

    raw = raw_ranking(found)
    others = []
    if isinstance(source, RetrievalModel) and top_k is not None:
        others.append(second_stage_ranking(source, found, top_k))
    if post == "dsl":
        others.append(dsl_ranking(raw))
    elif post == "qb-norm":
        others.append(_with_bank(source, data, raw, found))

    leak = _check_leak(source, found, raw, top_k or DEFAULT_TOP_K) if leak_check else None
    rescored = (Rescored(one.name, one.title, one.evaluate(found.clips, found.owners)) for one in others)
    evaluation = raw.evaluate(found.clips, found.owners)
    report = Report(model, data, split, evaluation, found.unreadable, tuple(rescored), leak)
    if per_query is not None:
        write_per_query(per_query, found, [raw, *others])
    if run is not None:
        with staged_file(run / f"{split}.json") as staged:
            staged.write_text(json.dumps(report.to_json(), indent=1) + "\n", encoding="utf-8")
    return report


def print_report(report: Report) -> None:
    """Tables on standard output: raw figures first."""
    _print_evaluation(f"{report.model} on {report.data}, {report.split}", report.evaluation)
    for one in report.rescored:
        _print_evaluation(one.title, one.evaluation)
    if report.leak is not None and not report.leak.found:
        click.echo(report.leak.sentence)


def _print_evaluation(title: str, evaluation: Evaluation) -> None:
    columns = ["direction", "queries", "gallery", "R@1 %", "R@5 %", "R@10 %", "MdR", "MnR"]
    rows = [
        [DIRECTIONS[name], found.queries, found.gallery, *_cells(found)]
        for name, found in evaluation.directions.items()
    ]
    table(f"{title}: Rsum {evaluation.retrieval.rsum:.1f}", columns, rows)
    if evaluation.groups:
        table(
            "Within groups: recall at 1 when the gallery is the clip's own group",
            ["kind", "captions", "text to video", "video to text", "ceiling without order"],
            [
                [group.kind, group.queries, f"{group.t2v_r1:.2f}", f"{group.v2t_r1:.2f}", f"{group.order_blind:.2f}"]
                for group in evaluation.groups
            ],
        )


def _cells(found: Direction) -> Iterator[str]:
    won, lost = found.optimistic, found.pessimistic
    for k, value in found.recall.items():
        yield _cell(value, won.recall[k], lost.recall[k], ".1f")
    yield _cell(found.median_rank, won.median_rank, lost.median_rank, "g")
    yield _cell(found.mean_rank, won.mean_rank, lost.mean_rank, ".1f")


def _cell(value: float, optimistic: float, pessimistic: float, form: str) -> str:
    if abs(optimistic - pessimistic) <= SHOWN_TIES:
        return f"{value:{form}}"
    return f"{value:{form}} ({optimistic:{form}}..{pessimistic:{form}})"


def _open(path: Path) -> RetrievalModel | Model:
    if path.is_dir():
        from vtr_runtime import load

        return load(path)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return load_checkpoint(path).model.to(device)


def _refuse(source: RetrievalModel | Model, split: str, post: Post, top_k: int | None, per_query: Path | None) -> None:
    if top_k is not None and not isinstance(source, RetrievalModel):
        raise ConfigError("a bundle's second stage is not exported yet; give --top-k with the checkpoint instead")
    if top_k is not None and isinstance(source, RetrievalModel) and source.rerank is None:
        raise ConfigError("the model has no second stage (rerank.kind is none); leave out --top-k, or train one")
    if post == "qb-norm" and split == "train":
        raise ConfigError(
            "QB-Norm's bank is the training captions, which are the queries of --split train; take another"
        )
    if per_query is None:
        return
    check_output(per_query, overwrite=True)
    if per_query.exists():
        raise OutputExistsError(f"{per_query} exists already; give --per-query another name, or remove it first")


def _embed(source: RetrievalModel | Model, clips: Sequence[Any], *, tokens: bool) -> EmbeddedSplit:
    if isinstance(source, RetrievalModel):
        return embed_with_torch(source, clips, tokens=tokens)
    return embed_with_runtime(source, clips)


def _with_bank(source: RetrievalModel | Model, data: str, raw: Ranking, split: EmbeddedSplit) -> Ranking:
    captions, _ = caption_rows(read_clips(data, "train"))
    chosen = choose_bank(captions)
    bank = embed_captions(source, chosen) if isinstance(source, RetrievalModel) else source.encode_texts(chosen)
    return qb_ranking(raw, split, bank, len(captions))


def _check_leak(source: RetrievalModel | Model, split: EmbeddedSplit, raw: Ranking, k: int) -> LeakCheck:
    if not isinstance(source, RetrievalModel) or source.rerank is None:
        return LeakCheck(0, {})
    return check_leak(lambda part, wanted: second_stage_scores(source, part, wanted), split, top_pairs(raw, k))
