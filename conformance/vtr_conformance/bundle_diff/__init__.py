"""What changed between two bundles: on disk, in their golden vectors, and in what a host makes of the same inputs."""

from __future__ import annotations

from vtr_runtime.bundle import Bundle
from vtr_runtime.errors import UnavailableError, UsageError

from ..cases import read_cases
from ..hosts import default_backends, open_in_process
from .files import changed_fields, changed_operators, changed_sizes, read_reported
from .records import BundleDiff, Moved
from .vectors import Side, compare_found, compare_golden

__all__ = ["BundleDiff", "diff_bundles"]

AUTO = "auto"


def diff_bundles(a: Bundle, b: Bundle, backend: str = AUTO) -> BundleDiff:
    """Compare B with A, as far as it goes: bundles of other spaces, lengths or frames too.

    `backend` runs both; `auto` takes for each what proves its precision. UsageError for a bundle with itself."""
    if a.folder.resolve() == b.folder.resolve():
        raise UsageError(f"{a.folder} and {b.folder} are one folder; give two bundles")
    cases = read_cases(a)
    golden, notes = compare_golden(cases, read_cases(b))
    sides = [Side(bundle, open_in_process(bundle, _chosen(bundle, backend))) for bundle in (a, b)]
    hosts = [side.host for side in sides]
    found: list[Moved] = []
    undone = []
    try:
        found, more = compare_found(sides[0], sides[1], cases)
        notes += more
    except UnavailableError as error:
        undone.append(str(error))
    reported = [read_reported(bundle) for bundle in (a, b)]
    return BundleDiff(
        precision=hosts[0].precision,
        host=" and ".join(dict.fromkeys(f"{host.name} {host.backend}" for host in hosts)),
        same_space=a.manifest.space == b.manifest.space,
        fields=tuple(changed_fields(a, b)),
        sizes=tuple(changed_sizes(a, b)),
        operators=tuple(changed_operators(a, b)),
        golden=tuple(golden),
        found=tuple(found),
        reports=(reported[0][0], reported[1][0]),
        notes=(*notes, *(why for _, why in reported if why)),
        undone=tuple(undone),
    )


def _chosen(bundle: Bundle, backend: str) -> str:
    return default_backends(bundle.manifest)[-1] if backend == AUTO else backend
