"""The verdict in a bundle's README: written by the export, renewed by a report into the bundle."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from vtr_conformance.cli import main
from vtr_conformance.report import readme
from vtr_export.bundle_writer import VERDICT, renew_verdict
from vtr_runtime.bundle import open_bundle
from vtr_runtime.errors import UsageError


def verdicts(bundle: Path) -> list[str]:
    return [line for line in (bundle / "README.md").read_text().splitlines() if line.startswith(VERDICT)]


def test_an_export_tells_verdict_date_hosts_and_figures(small_bundle: Path) -> None:
    [line] = verdicts(small_bundle)
    assert line.startswith("Conformance: **every gate met: ")
    for words in (
        "; 20",
        "on vtr-runtime onnx-cpu, pytorch torch",
        "aligned max |difference| ",
        "`reports/report.html`",
    ):
        assert words in line
    names = {path.name for path in (small_bundle / "reports").iterdir()}
    assert {"conformance.jsonl", "junit.xml", "report.html"} <= names


def test_a_report_into_the_bundle_renews_the_line_and_nothing_else(bundle_copy: Path, tmp_path: Path) -> None:
    before = (bundle_copy / "README.md").read_text().splitlines()
    again = ["run", str(bundle_copy), "--no-modules", "--no-speed", "--batch", "1:1:2"]
    elsewhere = CliRunner().invoke(main, [*again, "--report", str(tmp_path / "elsewhere")])
    assert elsewhere.exit_code == 0
    assert (bundle_copy / "README.md").read_text().splitlines() == before
    own = CliRunner().invoke(main, [*again, "--report", str(tmp_path / "elsewhere" / ".." / "bundle" / "reports")])
    assert own.exit_code == 0
    assert f"verdict: {bundle_copy / 'README.md'}" in own.stderr
    after = (bundle_copy / "README.md").read_text().splitlines()
    changed = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
    assert len(changed) == 1
    assert "on vtr-runtime onnx-cpu;" in changed[0][1]  # no checkpoint this time
    open_bundle(bundle_copy)  # every hashed file is as it was


def test_a_verdict_that_fails_is_told_as_well(bundle_copy: Path) -> None:
    assert renew_verdict(bundle_copy, "**first stage that moved: ids**")
    assert verdicts(bundle_copy) == ["Conformance: **first stage that moved: ids** (`reports/report.html`)."]


def test_what_the_owner_wrote_stays(tmp_path: Path) -> None:
    """Line ends and bytes that are no UTF-8 as well; a README without the line, or none, is left alone."""
    content = b"# mine\r\ncaf\xe9\r\nConformance: old\nConformance: a second\nend"
    (tmp_path / "README.md").write_bytes(content)
    assert renew_verdict(tmp_path, "new")
    wanted = content.replace(b"Conformance: old", b"Conformance: new (`reports/report.html`).")
    assert (tmp_path / "README.md").read_bytes() == wanted
    (tmp_path / "README.md").write_text("nothing of the kind\n")
    assert not renew_verdict(tmp_path, "new")
    assert (tmp_path / "README.md").read_text() == "nothing of the kind\n"
    (tmp_path / "README.md").unlink()
    assert not renew_verdict(tmp_path, "new")
    assert not (tmp_path / "README.md").exists()


def test_a_bundle_that_is_read_only_is_refused_before_anything_runs(
    bundle_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(bundle_copy / "reports")
    readme.check_writable(bundle_copy)
    monkeypatch.setattr(readme.os, "access", lambda path, mode: not (Path(path) == bundle_copy and mode & os.W_OK))
    with pytest.raises(UsageError, match=r"is read-only.*outside the bundle"):
        readme.check_writable(bundle_copy)
    done = CliRunner().invoke(main, ["run", str(bundle_copy), "--report", str(bundle_copy / "reports")])
    assert done.exit_code == 2
    assert "is read-only" in done.stderr
    assert not (bundle_copy / "reports").exists()
