"""The verdict in one line, for a bundle's README."""

from __future__ import annotations

from vtr_runtime.console import printable
from vtr_runtime.stages import NO_PROOF

from ..results import REFERENCE, Report
from .ranked import r1_words
from .summary import share_of_limit

# What a bundle gives to hosts: their largest errors are told.
TOLD = ("aligned", "video_embedding", "rerank")


def one_line(report: Report) -> str:
    """The verdict, when, on which hosts, how far off, and what was found of a split. Markdown."""
    parts = [f"**{report.verdict}**"]
    if report.details is not None:
        parts.append(report.details.about.date[:10])
    ran = [result for result in report.results if result.status != "not_run" and result.stage not in NO_PROOF]
    hosts = dict.fromkeys(f"{result.host} {result.backend}" for result in ran)
    parts.append(f"on {', '.join(hosts)}" if hosts else "no graph ran")
    parts += filter(None, (_largest(report, stage) for stage in TOLD))
    parts += map(r1_words, report.retrieval)
    return " ".join(printable("; ".join(parts)).split())


def _largest(report: Report, stage: str) -> str:
    """By how much a stage moved at most, on a host other than PyTorch itself."""
    found = [r for r in report.results if r.stage == stage and r.host != REFERENCE and r.measured is not None]
    if not found:
        return ""
    worst = max(found, key=share_of_limit)
    return f"{stage} {worst.unit} {worst.measured:.2g}"
