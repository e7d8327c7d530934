"""report.html: one file that a person can judge by, without network. The sections are data; page.html.j2 shows them."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from markupsafe import Markup

from vtr_export.pages import render as pages
from vtr_export.pages.parts import Picture, Table
from vtr_runtime.console import printable
from vtr_runtime.publish import staged_file
from vtr_runtime.stages import FINITE, stage_of

from ..failures import sentence
from ..results import Report, Result, Status
from . import sections
from .sections import Section
from .summary import StageSummary, summarise

HERE = Path(__file__).parent
SYMBOLS: dict[Status, str] = {"pass": "✓", "fail": "✗", "not_run": "○"}
WORDS: dict[Status, str] = {"pass": "pass", "fail": "FAILED", "not_run": "not run"}
ORDER: tuple[Status, ...] = ("fail", "not_run", "pass")
SENTENCES = 8  # failures told on top; the others stand in the table
# Above so many rows the table begins with what failed or was not run.
MANY_ROWS = 300


@dataclass(frozen=True)
class Head:
    """What stands on top. `state` is passed, unproved (passed, but not in the bundle's precision) or failed."""

    state: Literal["passed", "unproved", "failed"]
    symbol: str
    words: str
    title: str
    verdict: str
    where: str
    failures: Sequence[str]
    more_failures: int
    not_run: Sequence[str]


@dataclass(frozen=True)
class Cell:
    """One host at one stage."""

    status: Status
    text: str
    note: str


@dataclass(frozen=True)
class Grid:
    """Stages, each with its unit, by hosts; None where a host has no case of a stage."""

    hosts: Sequence[str]
    rows: Sequence[tuple[str, str, Sequence[Cell | None]]]


@dataclass(frozen=True)
class Row:
    """A result in the last table."""

    status: Status
    stage: str
    on: str
    case: str
    measured: str
    limit: str
    said: str


@dataclass(frozen=True)
class Page:
    head: Head
    grid: Grid
    overview: Picture | None  # None where there is no result
    sections: Sequence[Section]
    rows: Sequence[Row]
    first_shown: str  # what the filter of the table begins with
    about: Table | None


def write_page(report: Report, path: Path) -> None:
    content = render(make_page(report))
    with staged_file(path) as staged:
        staged.write_bytes(content)


def make_page(report: Report) -> Page:
    found = summarise(report.results)
    rows = [_row(result) for status in ORDER for result in _in_order(report) if result.status == status]
    return Page(
        head=_head(report),
        grid=_grid(found),
        overview=sections.overview(found) if found else None,
        sections=[section for section in sections.all_sections(report) if section is not None],
        rows=rows,
        first_shown="all" if len(rows) <= MANY_ROWS else "open",
        about=sections.about(report),
    )


def render(page: Page) -> bytes:
    """Styles and the script are allowed by their hashes: nothing that slipped into the page could run."""
    style = (pages.HERE / "base.css").read_text(encoding="utf-8") + (HERE / "page.css").read_text(encoding="utf-8")
    script = (HERE / "page.js").read_text(encoding="utf-8")
    policy = f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}"
    return pages.render(
        HERE / "page.html.j2",
        page=page,
        policy=Markup(policy),
        style=Markup(style),
        script=Markup(script),
        symbols=SYMBOLS,
        words=WORDS,
    )


def _head(report: Report) -> Head:
    title = "Conformance"
    if report.details is not None:
        title = f"Conformance of {report.details.about.model}, {report.details.about.precision}"
    if not report.passed:
        state, symbol, words = "failed", "✗", "Failed" if report.failed else "Nothing was checked"
    elif report.unproved:
        state, symbol, words = "unproved", "!", f"Passed, but {report.precision} is not proved"
    else:
        state, symbol, words = "passed", "✓", "Passed"
    told = [printable(sentence(result)) for result in report.failed[:SENTENCES]]
    return Head(
        state=state,  # type: ignore[arg-type]
        symbol=symbol,
        words=words,
        title=printable(title),
        verdict=report.verdict,
        where=_where(report),
        failures=told,
        more_failures=len(report.failed) - len(told),
        not_run=_reasons(report.results),
    )


def _where(report: Report) -> str:
    if report.details is None:
        return ""
    about = report.details.about
    return printable(f"{about.date[:10]}, {about.machine['cpu']}; space {about.space[:16]}")


def _reasons(results: Sequence[Result]) -> list[str]:
    """Why cases were not run: each reason once, with its stages and hosts."""
    reasons: dict[str, list[Result]] = {}
    for result in results:
        if result.status == "not_run":
            # "no output text_embedding" and "no output aligned" are one reason.
            reasons.setdefault(result.hint.replace(f" {result.stage}", ""), []).append(result)
    lines = []
    for reason, mine in reasons.items():
        stages = ", ".join(dict.fromkeys(stage_of(result.stage).name for result in mine))
        hosts = ", ".join(dict.fromkeys(f"{result.host} {result.backend}" for result in mine))
        lines.append(printable(f"{len(mine)} of {hosts} ({stages}): {reason}"))
    return lines


def _grid(found: Sequence[StageSummary]) -> Grid:
    hosts = list(dict.fromkeys(summary.on for summary in found))
    units: dict[str, dict[str, None]] = {}
    for summary in found:
        units.setdefault(summary.stage, {}).update({summary.worst.unit: None} if summary.worst.unit else {})
    cells = {(summary.stage, summary.on): _cell(summary) for summary in found}
    return Grid(
        [printable(host) for host in hosts],
        [(stage, " or ".join(said), [cells.get((stage, host)) for host in hosts]) for stage, said in units.items()],
    )


def _cell(summary: StageSummary) -> Cell:
    worst = summary.worst
    if summary.status == "not_run":
        return Cell("not_run", "not run", printable(worst.hint))
    note = f"{summary.ran} cases; {worst.unit}"
    return Cell(summary.status, _measured(worst), note + (f"; {summary.not_run} not run" if summary.not_run else ""))


def _measured(worst: Result) -> str:
    if worst.measured is None:
        return "no answer"
    if worst.limit:
        return f"{worst.measured:.2g} of {worst.limit:.2g}"
    if worst.unit == FINITE.unit:
        return "all finite" if worst.measured == 0 else "not finite"
    return "no difference" if worst.measured == 0 else f"{worst.measured:g} {worst.unit}"


def _in_order(report: Report) -> list[Result]:
    """Failures in the order of the stages, all else as it came."""
    return [*report.failed, *(result for result in report.results if result.status != "fail")]


def _row(result: Result) -> Row:
    said = sentence(result) if result.status == "fail" else result.hint if result.status == "not_run" else result.where
    return Row(
        status=result.status,
        stage=result.stage,
        on=printable(f"{result.host} {result.backend}"),
        case=printable(result.case),
        measured="" if result.measured is None else f"{result.measured:.3g}",
        limit="" if result.limit is None else f"{result.limit:.3g}",
        said=printable(said),
    )


def _hash(text: str) -> str:
    return f"'sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
