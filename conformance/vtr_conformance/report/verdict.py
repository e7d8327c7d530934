"""The verdict in one line, for a bundle's README."""

from __future__ import annotations

from ..results import REFERENCE, Report
from .summary import share_of_limit

# What a bundle gives to hosts: their largest errors are told.
TOLD = ("aligned", "video_embedding", "rerank")


def one_line(report: Report) -> str:
    """The verdict, when, on which hosts, how far off, and what was found of a split. Markdown."""
    parts = [f"**{report.verdict}**"]
    if report.details is not None:
        parts.append(report.details.about.date[:10])
    hosts = dict.fromkeys(f"{r.host} {r.backend}" for r in report.results if r.status != "not_run")
    parts.append(f"on {', '.join(hosts)}" if hosts else "on no host")
    parts += filter(None, (_largest(report, stage) for stage in TOLD))
    parts += [
        f"{entry.host} {entry.backend} R@1 {entry.recall['R@1']:.1f} (PyTorch {entry.reference_recall['R@1']:.1f}) "
        f"of {entry.texts} texts"
        for entry in report.retrieval
    ]
    return "; ".join(parts)


def _largest(report: Report, stage: str) -> str:
    """By how much a stage moved at most, on a host other than PyTorch itself."""
    found = [r for r in report.results if r.stage == stage and r.host != REFERENCE and r.measured is not None]
    if not found:
        return ""
    worst = max(found, key=share_of_limit)
    return f"{stage} {worst.unit} {worst.measured:.2g}"
