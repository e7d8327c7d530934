"""Run cases, corners and a split on hosts, and judge them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, closing, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from vtr_runtime.bundle import Bundle, open_bundle
from vtr_runtime.errors import UsageError, VtrError

from .cases import ANEW, Case, absent_stages, read_cases
from .corners import BATCHES, check_corners, corners, expect
from .details.records import Wanted
from .engines import check_engines
from .examples import EXAMPLES
from .hosts import Host, ProcessOptions, default_backends, open_command, open_host
from .judge import judge, not_run, raised
from .properties import check_properties
from .results import HostEntry, Report, Result, Retrieval
from .retrieval import compare_rankings
from .split import NONE, SplitClips, generated_split, read_split

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
    commands: Sequence[str] = (),
    process: ProcessOptions | None = None,
    build_engines: bool = False,
    wanted: Wanted | None = None,
) -> Report:
    """Golden cases, corners and properties on every backend (default: `hosts.default_backends`, where no command is
    given) and every command that speaks the protocol of docs/certify-a-host.md; with a checkpoint, PyTorch too, and the
    ranking of a whole split: that of `data`, else a small one that is generated, or with "none" no split. `batches` are
    the profile's; `examples` are drawn for each property; `process` says how hosts are run; `build_engines` builds
    TensorRT's although the bundle holds some; `wanted` is what to measure for a report beside the gates.

    Raises UsageError when `data` comes without a checkpoint: the reference ranking is PyTorch's."""
    if data not in (None, NONE) and checkpoint is None:
        raise UsageError("--data compares the ranking with PyTorch's and needs the checkpoint; add --ckpt best.pt")
    given = None if data in (None, NONE) else read_split(data, split)
    opened = open_bundle(bundle)
    cases = read_cases(opened)
    names = backends or (() if commands else default_backends(opened.manifest))
    with ExitStack() as stack:
        found = [stack.enter_context(closing(open_host(opened, name, process))) for name in names]
        found += [stack.enter_context(closing(open_command(opened, command, process))) for command in commands]
        engines = [
            result
            for host, name in zip(found, names, strict=False)
            for result in check_engines(host, opened, name, batches, build=build_engines)
        ]
        reference = None if checkpoint is None else _reference(checkpoint, opened)
        report = _check(opened, cases, found, reference, batches, examples)
        ranked = _rank(opened, found, reference, given, max(batches), wanted=data != NONE)
        details = None
        if wanted is not None:
            from .details.collect import collect

            details = collect(opened, found, reference, cases, wanted, max(batches))
        told = tuple(HostEntry(host.name, host.backend, host.precision, host.version, host.note) for host in found)
    precision = opened.manifest.precision
    results = (*engines, *report, *ranked.results)
    return Report(results, ranked.summaries, precision, told, ranked.left_out, details)


def _reference(checkpoint: Path, bundle: Bundle) -> TorchHost:
    from .hosts.torch import TorchHost

    return TorchHost(checkpoint, bundle)


def _check(
    bundle: Bundle,
    cases: Sequence[Case],
    hosts: Sequence[Host],
    reference: TorchHost | None,
    batches: Sequence[int],
    examples: int,
) -> list[Result]:
    """Golden cases, corners and properties."""
    manifest = bundle.manifest
    results = [answer_case(host, case) for host in hosts for case in cases]
    older = f"the bundle's golden vectors are older than this stage; {ANEW.format(bundle.folder)}"
    results += [not_run(host, stage, "golden", older) for stage in absent_stages(cases, manifest) for host in hosts]
    if reference is not None:
        # Training reads frames and words through the runtime: before the model PyTorch has nothing of its own.
        inside = [case for case in cases if case.arrays is not None]
        results += [answer_case(host, case) for host in (reference, reference.in_float64()) for case in inside]
    places, largest = corners(manifest, batches), max(batches)
    expected = expect(reference, places, largest)
    for host in hosts:
        results += check_corners(host, places, expected, largest)
        results += check_properties(host, manifest, largest, examples)
    return results


class _Ranked(NamedTuple):
    results: Sequence[Result]
    summaries: tuple[Retrieval, ...] = ()
    left_out: tuple[str, ...] = ()


def _rank(
    bundle: Bundle,
    hosts: Sequence[Host],
    reference: TorchHost | None,
    given: SplitClips | None,
    batch: int,
    *,
    wanted: bool,
) -> _Ranked:
    """The ranking of a split against the reference's; without a reference, or where none is `wanted`, it is not run."""
    if reference is None or not wanted:
        why = "the ranking is compared with PyTorch's: add --ckpt"
        if bundle.manifest.precision == "int8":
            why = "int8 is judged by the R@1 that it loses: add --data and --ckpt"
        elif not wanted:
            return _Ranked([])
        return _Ranked([not_run(host, "retrieval", "no ranking", host.note or why) for host in hosts])
    with nullcontext(given) if given is not None else generated_split() as clips:
        results, summaries, left_out = compare_rankings(reference, hosts, bundle, clips, batch)
    return _Ranked(results, tuple(summaries), left_out)


def answer_case(host: Host, case: Case) -> Result:
    """One case on one host; an error of the host is a failure of the case, not of the run."""
    try:
        actual = host.answer(case)
    except VtrError as error:
        return raised(host, case.stage, case.id, error)
    if isinstance(actual, str):
        return not_run(host, case.stage, case.id, actual)
    return judge(host, case.stage, case.id, case.expected, actual, labels=case.labels)
