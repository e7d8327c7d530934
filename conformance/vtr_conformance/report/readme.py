"""The verdict in the bundle's own README, renewed where the report goes into the bundle's own folder of reports."""

from __future__ import annotations

import os
from pathlib import Path

from vtr_runtime.errors import UsageError

from ..results import Report
from .verdict import one_line

REPORTS = "reports"


def is_own_folder(bundle: Path, report: Path) -> bool:
    """Whether a report goes where `vtr-export` put the first one."""
    return report.resolve() == (bundle / REPORTS).resolve()


def check_writable(bundle: Path) -> None:
    """UsageError, before anything is run, for a bundle that cannot take a report and a README."""
    for folder in (bundle, bundle / REPORTS):
        if folder.is_dir() and not os.access(folder, os.W_OK | os.X_OK):
            raise UsageError(
                f"{folder} is read-only: neither its report nor the verdict in README.md can be renewed; give --report "
                "a folder outside the bundle"
            )


def renew_readme(report: Report, bundle: Path) -> str:
    """Replace the README's line; what came of it, in words. StorageError where it cannot be written."""
    from vtr_export.bundle_writer import README, VERDICT, renew_verdict

    if renew_verdict(bundle, one_line(report)):
        return f"verdict: {bundle / README}"
    return f"{bundle / README} has no line that begins with '{VERDICT.strip()}': the verdict stands in the report alone"
