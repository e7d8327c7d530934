"""A report in a folder, in all its forms."""

from __future__ import annotations

from pathlib import Path

from vtr_runtime.errors import StorageError
from vtr_runtime.publish import storage_errors

from ..results import Report
from .junit import write_junit
from .lines import write_lines

LINES, JUNIT, PAGE = "conformance.jsonl", "junit.xml", "report.html"


def write_report(report: Report, folder: Path) -> list[Path]:
    """Write conformance.jsonl, junit.xml and report.html, each in one step; the paths are those of the three.

    StorageError where the folder cannot be written."""
    from .page import write_page  # matplotlib takes its time, and a run without --report needs none

    paths = [folder / name for name in (LINES, JUNIT, PAGE)]
    with storage_errors(folder):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise StorageError(f"{folder} is not a folder and cannot become one; give --report another name") from error
    for write, path in zip((write_lines, write_junit, write_page), paths, strict=True):
        write(report, path)
    return paths
