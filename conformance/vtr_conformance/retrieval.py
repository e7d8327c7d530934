"""A whole split, embedded by PyTorch and by a host: are the same videos found?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vtr_runtime.metrics import Direction, retrieval

from .comparators import largest_swaps
from .hosts import RuntimeHost
from .hosts.base import scores
from .judge import judge, not_run
from .results import Result, Retrieval
from .stages import RANKING_TIE

if TYPE_CHECKING:
    from vtr_training.embed import EmbeddedSplit

    from .hosts.torch import TorchHost

# A ranking says something about an export only where the model itself retrieves.
MEANINGFUL_TIMES_CHANCE = 5
TOP = 10

Scores = NDArray[np.float64]


def compare_rankings(
    reference: TorchHost, hosts: Iterable[RuntimeHost], data: str, split: str
) -> tuple[list[Result], list[Retrieval]]:
    """Embed a split with PyTorch and with each host; embeddings and every query's ranking must agree.

    Clips that cannot be read are left out and counted."""
    from vtr_training.data.source import read_clips
    from vtr_training.data.spec import parse_spec
    from vtr_training.embed import embed_with_runtime, embed_with_torch

    clips = read_clips(data, split)
    want = embed_with_torch(reference.model, clips)
    case = f"{parse_spec(data).title}:{split}"  # the report travels in the bundle, the path does not
    results, summaries = [], []
    for host in hosts:
        if host.note is not None:
            results.append(not_run(host, "retrieval", case, host.note))
            continue
        got = embed_with_runtime(host.model, clips)
        summary = summarise(host, split, want, got)
        results += _judge_split(host, case, want, got, summary)
        summaries.append(summary)
    return results, summaries


def summarise(host: RuntimeHost, split: str, want: EmbeddedSplit, got: EmbeddedSplit) -> Retrieval:
    wanted, found = scores(want.text, want.video), scores(got.text, got.video)
    relevant = want.owners[:, None] == np.arange(len(want.clips))
    reference, here = retrieval(wanted, relevant).t2v, retrieval(found, relevant).t2v
    noise, margins = noise_of(want, got), flip_margins(wanted, found)
    return Retrieval(
        host=host.name,
        backend=host.backend,
        precision=host.precision,
        split=split,
        videos=wanted.shape[1],
        texts=wanted.shape[0],
        unreadable=len(want.unreadable),
        recall=_recall(here),
        reference_recall=_recall(reference),
        median_rank=here.median_rank,
        reference_median_rank=reference.median_rank,
        identical=int((largest_swaps(wanted, found) <= RANKING_TIE).sum()),
        flips=int((~np.isnan(margins)).sum()),
        flips_outside=int((margins > noise).sum()),
        largest_flip=float(np.nanmax(margins, initial=0.0)),
        noise=noise,
        top10_changed=int((_top_sets(wanted) != _top_sets(found)).any(axis=1).sum()),
        meaningful=reference.recall[1] >= MEANINGFUL_TIMES_CHANCE * 100 / wanted.shape[1],
    )


def noise_of(want: EmbeddedSplit, got: EmbeddedSplit) -> float:
    """The margin of two scores that errors of this size can swap: twice the largest error of any number in any
    embedding, and RANKING_TIE at least.

    Errors that are independent move the difference of two scores by less than twice the root mean square of an
    embedding's errors (the unit vector on the other side averages them), and the largest of thousands is some four
    times that mean; so a flip beyond is an error that leans one way."""
    pairs = ((want.text, got.text), (want.video, got.video))
    return max(RANKING_TIE, *(2 * float(np.abs(a.astype(np.float64) - b).max(initial=0.0)) for a, b in pairs))


def flip_margins(want: Scores, got: Scores) -> Scores:
    """Per query [Q]: by how much the reference prefers its own best item to the one that is best now; NaN where that
    is the same item."""
    before, after = want.argmax(axis=1), got.argmax(axis=1)
    rows = np.arange(len(want))
    return np.where(before == after, np.nan, want[rows, before] - want[rows, after])


def _judge_split(
    host: RuntimeHost, case: str, want: EmbeddedSplit, got: EmbeddedSplit, summary: Retrieval
) -> Iterator[Result]:
    wanted, found = scores(want.text, want.video), scores(got.text, got.video)
    yield judge(host, "video_embedding", case, {"embedding": want.video}, {"embedding": got.video})
    yield judge(host, "aligned", case, {"embedding": want.text}, {"embedding": got.text})
    yield judge(host, "ranking", case, {"scores": wanted}, {"scores": found})
    if host.precision != "int8":
        outside = flip_margins(wanted, found) > summary.noise
        yield judge(host, "retrieval", case, {"flips": np.zeros_like(outside)}, {"flips": outside})
    elif summary.meaningful:
        recalls = (np.array(r["R@1"]) for r in (summary.reference_recall, summary.recall))
        yield judge(host, "retrieval", case, *({"R@1": recall} for recall in recalls))
    else:
        chance = 100 / summary.videos
        why = f"the model itself has R@1 {summary.reference_recall['R@1']:.1f} where chance has {chance:.1f}"
        yield not_run(host, "retrieval", case, f"{why}: give a split on which it retrieves")


def _top_sets(scores: Scores) -> NDArray[np.intp]:
    """The first TOP items of each query, as sorted indices."""
    return np.sort(np.argsort(-scores, axis=1, kind="stable")[:, :TOP], axis=1)


def _recall(direction: Direction) -> dict[str, float]:
    return {f"R@{k}": value for k, value in direction.recall.items()}
