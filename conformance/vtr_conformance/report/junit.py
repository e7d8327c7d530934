"""junit.xml: for a CI system. A suite a host, a case a case; the dialect is that of Jenkins' and pytest's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from vtr_runtime.console import printable
from vtr_runtime.publish import staged_file
from vtr_runtime.stages import stage_of

from ..failures import failure_of, sentence
from ..results import Report, Result


def write_junit(report: Report, path: Path) -> None:
    root = Element("testsuites", _counts(report.results), name="conformance")
    for (host, backend), results in _suites(report.results).items():
        suite = SubElement(root, "testsuite", _counts(results), name=printable(f"{host} {backend}"))
        if report.details is not None:
            suite.set("timestamp", report.details.about.date.removesuffix("+00:00"))  # the schema knows no zone
            _add_properties(suite, bundle_properties(report))
        for result in results:
            _add_case(suite, result)
    tree = ElementTree.ElementTree(root)
    ElementTree.indent(tree)
    with staged_file(path) as staged:
        tree.write(staged, encoding="utf-8", xml_declaration=True)


def bundle_properties(report: Report) -> dict[str, object]:
    assert report.details is not None
    about = report.details.about
    return {"verdict": report.verdict, "space": about.space, "manifest_sha256": about.manifest_sha256}


def _suites(results: Iterable[Result]) -> dict[tuple[str, str], list[Result]]:
    suites: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        suites.setdefault((result.host, result.backend), []).append(result)
    return suites


def _counts(results: Sequence[Result]) -> dict[str, str]:
    states = [result.status for result in results]
    counts = {"tests": len(states), "failures": states.count("fail"), "skipped": states.count("not_run"), "errors": 0}
    return {name: str(count) for name, count in counts.items()}


def _add_case(suite: Element, result: Result) -> None:
    """XML cannot hold every character that a file name or a caption can: those are written as escapes."""
    case = SubElement(suite, "testcase", classname=stage_of(result.stage).name, name=printable(result.case))
    figures = {"measured": result.measured, "limit": result.limit, "unit": result.unit, "precision": result.precision}
    _add_properties(case, {name: value for name, value in figures.items() if value not in (None, "")})
    if result.status == "fail":
        said = printable(sentence(result))
        SubElement(case, "failure", type=type(failure_of(result)).__name__, message=said).text = said
    elif result.status == "not_run":
        SubElement(case, "skipped", message=printable(result.hint))


def _add_properties(parent: Element, values: dict[str, object]) -> None:
    properties = SubElement(parent, "properties")
    for name, value in values.items():
        SubElement(properties, "property", name=name, value=printable(value))
