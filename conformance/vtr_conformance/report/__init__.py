"""A report in its forms: a table, JSON lines."""

from __future__ import annotations

from .lines import write_report
from .terminal import print_report

__all__ = ["print_report", "write_report"]
