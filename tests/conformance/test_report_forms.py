"""The forms of a report, from one with every status and hostile names."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import pytest

from vtr_conformance.failures import BY_STAGE
from vtr_conformance.report import print_report, write_report
from vtr_conformance.report.summary import share_of_limit, summarise
from vtr_conformance.report.verdict import one_line
from vtr_conformance.results import Report, Result
from vtr_runtime.errors import StorageError

from .synthetic import HOSTILE, REPORT, RESULTS


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_report(REPORT, tmp_path / "report")
    return tmp_path / "report"


# Jenkins' junit-10.xsd as far as we use it: element -> (children in any number, attributes it must have, may have).
SCHEMA: dict[str, tuple[set[str], set[str], set[str]]] = {
    "testsuites": ({"testsuite"}, {"name", "tests", "failures", "skipped", "errors"}, set()),
    "testsuite": (
        {"properties", "testcase"},
        {"name", "tests", "failures", "skipped", "errors"},
        {"timestamp"},
    ),
    "properties": ({"property"}, set(), set()),
    "property": (set(), {"name", "value"}, set()),
    "testcase": ({"properties", "failure", "skipped"}, {"name", "classname"}, set()),
    "failure": (set(), {"message", "type"}, set()),
    "skipped": (set(), {"message"}, set()),
}


def check_schema(node: Element) -> None:
    children, needed, allowed = SCHEMA[node.tag]
    assert needed <= set(node.attrib) <= needed | allowed
    for name in {"tests", "failures", "skipped", "errors"} & set(node.attrib):
        assert node.attrib[name].isdecimal()
    if "timestamp" in node.attrib:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", node.attrib["timestamp"])
    tags = [child.tag for child in node]
    assert set(tags) <= children
    assert all(tags.count(once) <= 1 for once in ("properties", "failure", "skipped"))
    for child in node:
        check_schema(child)


def test_junit_has_a_suite_a_host_and_a_case_a_case(folder: Path) -> None:
    root = ElementTree.parse(folder / "junit.xml").getroot()
    check_schema(root)
    assert [suite.get("name") for suite in root] == ["vtr-runtime onnx-cpu", "vtr-runtime trt", "pytorch torch"]
    assert [(s.get("tests"), s.get("failures"), s.get("skipped")) for s in (root, *root)] == [
        ("9", "3", "3"),
        ("5", "3", "0"),
        ("3", "0", "3"),
        ("1", "0", "0"),
    ]
    cases = root.findall(".//testcase")
    assert [case.get("classname") for case in cases][:4] == ["ids", "pixels", "aligned", "video_embedding"]
    assert {case.get("classname") for case in cases if case.find("skipped") is not None} == {"aligned", "sampler_step"}
    failed = [failure for case in cases if (failure := case.find("failure")) is not None]
    assert [failure.get("type") for failure in failed] == [
        BY_STAGE[stage].__name__ for stage in ("pixels", "video_embedding", "rerank")
    ]
    assert "moved by 3 " in str(failed[0].get("message"))
    assert failed[0].get("message") == failed[0].text
    measured = {p.get("name"): p.get("value") for p in cases[2].findall("properties/property")}
    assert measured == {"measured": "2e-07", "limit": "1e-05", "unit": "max |difference|", "precision": "fp32"}


def test_junit_holds_names_that_xml_cannot(folder: Path) -> None:
    """XML has no form at all for most control characters: they stand as escapes."""
    text = (folder / "junit.xml").read_text(encoding="utf-8")
    assert not [letter for letter in text if not (letter.isprintable() or letter == "\n")]
    names = [str(case.get("name")) for case in ElementTree.fromstring(text).iter("testcase")]
    assert names[1].startswith("<script>document.title='bitten'</script> & \"x\" 'y' \\x00\\x0b\\udce9")


def test_json_lines_are_strict_and_end_with_the_verdict(folder: Path) -> None:
    def refuse(word: str) -> None:
        raise AssertionError(word)

    text = (folder / "conformance.jsonl").read_text(encoding="utf-8")
    *lines, last = [json.loads(line, parse_constant=refuse) for line in text.splitlines()]
    assert [line["case"] for line in lines if "status" in line] == [result.case for result in RESULTS]
    assert [line["retrieval"]["t2v"]["flips"] for line in lines if "retrieval" in line] == [2]
    [details] = [line["details"] for line in lines if "details" in line]
    assert details["modules"][1]["error"] == "inf"
    assert last["line"] == one_line(REPORT)
    assert (last["passed"], last["verdict"]) == (False, REPORT.verdict)
    json.dumps(REPORT.as_json(), allow_nan=False)


def test_the_line_for_the_readme_has_date_hosts_and_figures() -> None:
    found = replace(RESULTS[2], stage="video_embedding", measured=3e-6)
    passed = Report((*(r for r in RESULTS if r.status == "pass"), found), REPORT.retrieval, details=REPORT.details)
    assert one_line(passed) == (
        "**every gate met: 4 passed, 0 failed, 0 not run**; 2026-01-02; on vtr-runtime onnx-cpu, pytorch torch; "
        "aligned max |difference| 2e-07; video_embedding max |difference| 3e-06; "
        "vtr-runtime onnx-cpu R@1 44.0 (PyTorch 45.0) of 80 texts"
    )
    hostile = replace(RESULTS[2], host="a\nhost" + HOSTILE)
    assert one_line(Report((hostile,))).isprintable()
    before = Report((RESULTS[0], RESULTS[5]))
    assert "no graph ran" in one_line(before)


def test_what_was_not_run_is_no_host_that_ran() -> None:
    assert "trt" not in one_line(REPORT).split(";")[2]


def test_the_terminal_ends_with_what_failed(capsys: pytest.CaptureFixture[str]) -> None:
    print_report(REPORT, "title")
    printed = capsys.readouterr().out
    rows = [line.split() for line in printed.splitlines()]
    stages = [row[0] for row in rows if len(row) > 3 and row[1] in ("vtr-runtime", "pytorch") and row[0] != "FAILED"]
    assert stages[:5] == ["pixels", "ids", "sampler_step", "aligned", "aligned"]
    assert [row[1] for row in rows if row[:1] == ["FAILED"]] == ["pixels", "video_embedding", "rerank"]


def test_the_worst_case_stands_for_a_stage() -> None:
    results = [
        Result("h", "b", "aligned", "small", "pass", 1e-7, 1e-5),
        Result("h", "b", "aligned", "failed", "fail", None, 1e-5),
        Result("h", "b", "aligned", "large", "pass", 9e-6, 1e-5),
        Result("h", "b", "aligned", "absent", "not_run"),
        Result("h", "b", "sampler_step_2", "two", "pass", 2e-6, 1e-5),
        Result("h", "b", "sampler_step_1", "one", "pass", 1e-6, 1e-5),
    ]
    step, aligned = summarise(results)
    assert (step.stage, step.worst.case, step.ran) == ("sampler_step", "two", 2)
    assert (aligned.status, aligned.worst.case, aligned.ran, aligned.not_run) == ("fail", "failed", 3, 1)
    [sound] = summarise([results[0], results[2]])
    assert (sound.status, sound.worst.case) == ("pass", "large")
    shares = [share_of_limit(result) for result in results[:3]]
    assert shares == pytest.approx([0.01, float("inf"), 0.9])


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="is not a folder"):
        write_report(REPORT, tmp_path / "file" / "report")
