"""Run cases, corners and a split on hosts, and judge them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vtr_runtime.bundle import open_bundle
from vtr_runtime.errors import UsageError, VtrError

from .cases import Case, read_cases
from .corners import BATCHES, check_corners, corners, expect
from .details.records import Wanted
from .hosts import Host, default_backends, open_host
from .invariance import check_invariance
from .judge import judge, not_run, raised
from .results import Report, Result, Retrieval
from .retrieval import compare_rankings

if TYPE_CHECKING:
    from .hosts.torch import TorchHost


def run(
    bundle: Path,
    *,
    checkpoint: Path | None = None,
    backends: Sequence[str] = (),
    data: str | None = None,
    split: str = "test",
    batches: Sequence[int] = BATCHES,
    wanted: Wanted | None = None,
) -> Report:
    """Golden cases, corners and invariance on every backend (default: `hosts.default_backends`); with a checkpoint,
    PyTorch too; with data, the ranking of a whole split. `batches` are the profile's, `wanted`
    what to measure for a report beside the gates.

    Raises UsageError when `data` comes without a checkpoint: the reference ranking is PyTorch's."""
    if data is not None and checkpoint is None:
        raise UsageError("--data compares the ranking with PyTorch's and needs the checkpoint; add --ckpt best.pt")
    opened = open_bundle(bundle)
    manifest = opened.manifest
    cases = read_cases(opened)
    hosts = [open_host(opened, backend) for backend in backends or default_backends(manifest)]
    reference: TorchHost | None = None
    if checkpoint is not None:
        from .hosts.torch import TorchHost

        reference = TorchHost(checkpoint, opened)
    results = [answer_case(host, case) for host in hosts for case in cases]
    if reference is not None:
        # Training reads frames and words through the runtime: before the model PyTorch has nothing of its own.
        results += [answer_case(reference, case) for case in cases if case.arrays is not None]
    places, largest = corners(manifest, batches), max(batches)
    expected = expect(reference, places, largest)
    for host in hosts:
        results += check_corners(host, places, expected, largest)
        results += check_invariance(host, manifest, largest)
    summaries: list[Retrieval] = []
    if data is not None and reference is not None:
        ranked, summaries = compare_rankings(reference, hosts, data, split)
        results += ranked
    elif manifest.precision == "int8":
        why = "int8 is judged by the R@1 that it loses: add --data and --ckpt"
        results += [not_run(host, "retrieval", "no data", why) for host in hosts]
    details = None
    if wanted is not None:
        from .details.collect import collect

        details = collect(opened, hosts, reference, cases, wanted, largest)
    return Report(tuple(results), tuple(summaries), manifest.precision, details=details)


def answer_case(host: Host, case: Case) -> Result:
    """One case on one host; an error of the host is a failure of the case, not of the run."""
    try:
        actual = host.answer(case)
    except VtrError as error:
        return raised(host, case.stage, case.id, error)
    if isinstance(actual, str):
        return not_run(host, case.stage, case.id, actual)
    return judge(host, case.stage, case.id, case.expected, actual, labels=case.labels)
