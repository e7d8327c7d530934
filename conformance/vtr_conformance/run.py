"""Run cases, corners and a split on hosts, and judge them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from vtr_runtime.bundle import open_bundle
from vtr_runtime.errors import UsageError, VtrError

from .cases import Case, read_cases
from .corners import BATCHES, check_corners, corners, expect
from .details.records import Wanted
from .hosts import Host, default_backends, open_host
from .judge import judge, not_run, raised
from .properties import check_properties
from .results import Report, Result, Retrieval
from .retrieval import compare_rankings
from .split import NONE, generated_split, read_split
from .stages import EXAMPLES

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
    examples: int = EXAMPLES,
    wanted: Wanted | None = None,
) -> Report:
    """Golden cases, corners and properties on every backend (default: `hosts.default_backends`); with a checkpoint,
    PyTorch too, and the ranking of a whole split: that of `data`, else a small one that is generated, or with "none" no
    split. `batches` are the profile's; `examples` are drawn for each property; `wanted` is what to measure for a
    report beside the gates.

    Raises UsageError when `data` comes without a checkpoint: the reference ranking is PyTorch's."""
    if data not in (None, NONE) and checkpoint is None:
        raise UsageError("--data compares the ranking with PyTorch's and needs the checkpoint; add --ckpt best.pt")
    given = None if data in (None, NONE) else read_split(data, split)
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
        results += check_properties(host, manifest, largest, examples)
    summaries: list[Retrieval] = []
    left_out: tuple[str, ...] = ()
    if reference is not None and data != NONE:
        with nullcontext(given) if given is not None else generated_split() as clips:
            ranked, summaries, left_out = compare_rankings(reference, hosts, opened, clips, largest)
        results += ranked
    elif reference is None or manifest.precision == "int8":
        why = "the ranking is compared with PyTorch's: add --ckpt"
        if manifest.precision == "int8":
            why = "int8 is judged by the R@1 that it loses: add --data and --ckpt"
        results += [not_run(host, "retrieval", "no ranking", host.note or why) for host in hosts]
    details = None
    if wanted is not None:
        from .details.collect import collect

        details = collect(opened, hosts, reference, cases, wanted, largest)
    return Report(tuple(results), tuple(summaries), manifest.precision, left_out, details)


def answer_case(host: Host, case: Case) -> Result:
    """One case on one host; an error of the host is a failure of the case, not of the run."""
    try:
        actual = host.answer(case)
    except VtrError as error:
        return raised(host, case.stage, case.id, error)
    if isinstance(actual, str):
        return not_run(host, case.stage, case.id, actual)
    return judge(host, case.stage, case.id, case.expected, actual, labels=case.labels)
