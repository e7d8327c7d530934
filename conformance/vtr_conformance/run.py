"""Run cases on hosts and judge them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from vtr_runtime.backends import open_backend
from vtr_runtime.bundle import open_bundle
from vtr_runtime.errors import UsageError, VtrError
from vtr_runtime.metrics import retrieval
from vtr_runtime.model import Model

from .cases import Case, read_cases
from .comparators import Comparison, compare, largest_swaps
from .hosts import Host, RuntimeHost
from .hosts.base import scores
from .report import Report, Result, Retrieval, Status
from .stages import BY_NAME, RANKING_TIE, stage_of

if TYPE_CHECKING:
    from .hosts.torch import TorchHost

# A ranking says something about an export only where the model itself retrieves.
MEANINGFUL_TIMES_CHANCE = 5


def run(
    bundle: Path,
    *,
    checkpoint: Path | None = None,
    backends: Sequence[str] = ("auto",),
    data: str | None = None,
    split: str = "test",
) -> Report:
    """Golden cases on every backend; with a checkpoint, PyTorch too; with data, the ranking of a whole split.

    Raises UsageError when `data` comes without a checkpoint: the reference ranking is PyTorch's."""
    if data is not None and checkpoint is None:
        raise UsageError("--data compares the ranking with PyTorch's and needs the checkpoint; add --ckpt best.pt")
    opened = open_bundle(bundle)
    cases = read_cases(opened)
    hosts = [RuntimeHost(Model(opened, *open_backend(opened, backend))) for backend in backends]
    reference: TorchHost | None = None
    if checkpoint is not None:
        from .hosts.torch import TorchHost

        reference = TorchHost(checkpoint, opened)
    results = [answer_case(host, case) for host in hosts for case in cases]
    if reference is not None:
        # Training reads frames and words through the runtime: before the model PyTorch has nothing of its own.
        results += [answer_case(reference, case) for case in cases if case.arrays is not None]
    summaries: list[Retrieval] = []
    if data is not None and reference is not None:
        ranked, summaries = compare_rankings(reference, hosts, data, split)
        results += ranked
    return Report(tuple(results), tuple(summaries))


def answer_case(host: Host, case: Case) -> Result:
    """One case on one host; an error of the host is a failure of the case, not of the run."""
    stage = stage_of(case.stage)
    try:
        actual = host.answer(case)
    except VtrError as error:
        return Result(host.name, host.backend, case.stage, case.id, "fail", None, stage.limit, str(error), stage.hint)
    if isinstance(actual, str):
        return Result(host.name, host.backend, case.stage, case.id, "not_run", hint=actual)
    found = compare(stage.comparator, case.expected, actual, stage.limit)
    return _result(host, case.stage, case.id, found)


def compare_rankings(
    reference: TorchHost, hosts: Iterable[RuntimeHost], data: str, split: str
) -> tuple[list[Result], list[Retrieval]]:
    """Embed a split with PyTorch and with each host; embeddings and every query's ranking must agree.

    Clips that cannot be read are left out and counted."""
    from vtr_training.data.jsonl import read_clips
    from vtr_training.embed import embed_with_runtime, embed_with_torch

    clips = read_clips(data, split)
    want = embed_with_torch(reference.model, clips)
    relevant = want.owners[:, None] == np.arange(len(want.clips))
    want_scores = scores(want.text, want.video)
    results, summaries = [], []
    for host in hosts:
        got = embed_with_runtime(host.model, clips)
        got_scores = scores(got.text, got.video)
        pairs: dict[str, tuple[NDArray[Any], NDArray[Any]]] = {
            "video_embedding": (want.video, got.video),
            "aligned": (want.text, got.text),
            "ranking": (want_scores, got_scores),
        }
        results += [_judge(host, name, f"{data}:{split}", *pair) for name, pair in pairs.items()]
        summaries.append(_summary(host, split, want_scores, got_scores, relevant, len(want.unreadable)))
    return results, summaries


def _judge(host: Host, name: str, case: str, want: NDArray[Any], got: NDArray[Any]) -> Result:
    stage = BY_NAME[name]
    return _result(host, name, case, compare(stage.comparator, {name: want}, {name: got}, stage.limit))


def _result(host: Host, stage: str, case: str, found: Comparison) -> Result:
    judge, status = stage_of(stage), "pass" if found.passed else "fail"
    measured = (found.measured, judge.limit, found.where, judge.hint)
    return Result(host.name, host.backend, stage, case, cast(Status, status), *measured)


def _summary(
    host: Host,
    split: str,
    want: NDArray[np.float64],
    got: NDArray[np.float64],
    relevant: NDArray[np.bool_],
    unreadable: int,
) -> Retrieval:
    recall, reference = _recall(got, relevant), _recall(want, relevant)
    same = largest_swaps(want, got) <= RANKING_TIE
    meaningful = reference["R@1"] >= MEANINGFUL_TIMES_CHANCE * 100 / want.shape[1]
    texts, videos = want.shape
    return Retrieval(
        host=host.name,
        backend=host.backend,
        split=split,
        videos=videos,
        texts=texts,
        unreadable=unreadable,
        recall=recall,
        reference_recall=reference,
        identical=int(same.sum()),
        meaningful=meaningful,
    )


def _recall(scores: NDArray[np.float64], relevant: NDArray[np.bool_]) -> dict[str, float]:
    return {f"R@{k}": value for k, value in retrieval(scores, relevant).t2v.recall.items()}
