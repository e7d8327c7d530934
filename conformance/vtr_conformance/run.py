"""Run cases, corners and a split on hosts, and judge them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING

from vtr_runtime.bundle import Bundle, open_bundle
from vtr_runtime.errors import UsageError, VtrError

from .cases import Case, golden_stages, read_cases
from .corners import BATCHES, check_corners, corners, expect
from .engines import check_engines
from .hosts import Host, ProcessOptions, RuntimeHost, default_backends, open_command, open_host, open_in_process
from .invariance import check_invariance
from .judge import judge, not_run, raised
from .results import HostEntry, Report, Result, Retrieval
from .retrieval import compare_rankings
from .stages import stage_of

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
    commands: Sequence[str] = (),
    process: ProcessOptions | None = None,
    build_engines: bool = False,
) -> Report:
    """Golden cases, corners and invariance on every backend (default: `hosts.default_backends`, where no command is
    given) and every command that speaks the protocol of docs/certify-a-host.md; with a checkpoint, PyTorch too; with
    data, the ranking of a whole split. `batches` are the profile's; `process` says how hosts are run; `build_engines`
    builds TensorRT's although the bundle holds some.

    Raises UsageError when `data` comes without a checkpoint: the reference ranking is PyTorch's."""
    if data is not None and checkpoint is None:
        raise UsageError("--data compares the ranking with PyTorch's and needs the checkpoint; add --ckpt best.pt")
    opened = open_bundle(bundle)
    cases = read_cases(opened)
    # `retrieval` reads a host's model, which is in no other process.
    opener = open_host if data is None else lambda opened, name, _: open_in_process(opened, name)
    names = backends or (() if commands else default_backends(opened.manifest))
    with ExitStack() as stack:
        found = [stack.enter_context(closing(opener(opened, name, process))) for name in names]
        found += [stack.enter_context(closing(open_command(opened, command, process))) for command in commands]
        engines = [
            result
            for host, name in zip(found, names, strict=False)
            for result in check_engines(host, opened, name, batches, build=build_engines)
        ]
        return _check(opened, cases, found, engines, checkpoint=checkpoint, data=data, split=split, batches=batches)


def _check(
    opened: Bundle,
    cases: Sequence[Case],
    hosts: Sequence[Host],
    engines: Sequence[Result],
    *,
    checkpoint: Path | None,
    data: str | None,
    split: str,
    batches: Sequence[int],
) -> Report:
    manifest = opened.manifest
    reference: TorchHost | None = None
    if checkpoint is not None:
        from .hosts.torch import TorchHost

        reference = TorchHost(checkpoint, opened)
    results = [*engines, *(answer_case(host, case) for host in hosts for case in cases)]
    absent = set(golden_stages(manifest)) - {stage_of(case.stage).name for case in cases}
    why = "the golden vectors have no case of it: export the bundle anew"
    results += [not_run(host, stage, "none", why) for host in hosts for stage in sorted(absent)]
    if reference is not None:
        # Training reads frames and words through the runtime: before the model PyTorch has nothing of its own.
        inside = [case for case in cases if case.arrays is not None]
        results += [answer_case(host, case) for host in (reference, reference.in_float64()) for case in inside]
    places, largest = corners(manifest, batches), max(batches)
    expected = expect(reference, places, largest)
    for host in hosts:
        results += check_corners(host, places, expected, largest)
        results += check_invariance(host, manifest, largest)
    summaries: list[Retrieval] = []
    if data is not None and reference is not None:
        here = [host for host in hosts if isinstance(host, RuntimeHost)]
        ranked, summaries = compare_rankings(reference, here, data, split)
        results += ranked
        elsewhere = [host for host in hosts if host not in here]
        results += [not_run(host, "retrieval", "data", "only the runtime reads a data set") for host in elsewhere]
    elif manifest.precision == "int8":
        why = "int8 is judged by the R@1 that it loses: add --data and --ckpt"
        results += [not_run(host, "retrieval", "no data", why) for host in hosts]
    told = tuple(HostEntry(host.name, host.backend, host.precision, host.version, host.note) for host in hosts)
    return Report(tuple(results), tuple(summaries), manifest.precision, told)


def answer_case(host: Host, case: Case) -> Result:
    """One case on one host; an error of the host is a failure of the case, not of the run."""
    try:
        actual = host.answer(case)
    except VtrError as error:
        return raised(host, case.stage, case.id, error)
    if isinstance(actual, str):
        return not_run(host, case.stage, case.id, actual)
    return judge(host, case.stage, case.id, case.expected, actual, labels=case.labels)
