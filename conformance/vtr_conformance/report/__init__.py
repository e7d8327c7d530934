"""A report in its forms: a table, JSON lines, JUnit XML, a page."""

from __future__ import annotations

from .terminal import print_report
from .write import write_report

__all__ = ["print_report", "write_report"]
