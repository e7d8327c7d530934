"""A bundle that is damaged, foreign, newer or hostile is refused with one sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vtr_runtime.bundle import open_bundle
from vtr_runtime.errors import BundleError


def edit(bundle: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = bundle / "manifest.json"
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def test_a_sound_bundle_opens_and_lists_its_core(small_bundle: Path) -> None:
    files = open_bundle(small_bundle).manifest.files
    assert {"video.onnx", "text.onnx", "tokenizer.json", "golden/golden.json", "golden/golden.safetensors"} <= set(
        files
    )
    on_disk = {str(p.relative_to(small_bundle)) for p in small_bundle.rglob("*") if p.is_file()}
    made = ("conformance.jsonl", "junit.xml", "report.html", "reproduce/1-export.sh", "reproduce/2-gates.sh")
    reports = {f"reports/{name}" for name in made}
    assert on_disk - set(files) == {"manifest.json", "README.md", *reports}


@pytest.mark.parametrize("name", ["video.onnx", "text.onnx", "tokenizer.json", "golden/golden.safetensors"])
def test_one_changed_byte_is_found(bundle_copy: Path, name: str) -> None:
    data = bytearray((bundle_copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (bundle_copy / name).write_bytes(data)
    with pytest.raises(BundleError, match=rf"{name} is damaged.*export it anew"):
        open_bundle(bundle_copy)


def test_a_missing_file_and_a_cut_file_are_named(bundle_copy: Path) -> None:
    (bundle_copy / "tokenizer.json").write_bytes((bundle_copy / "tokenizer.json").read_bytes()[:-1])
    with pytest.raises(BundleError, match=r"tokenizer\.json has \d+ bytes, not \d+"):
        open_bundle(bundle_copy)
    (bundle_copy / "tokenizer.json").unlink()
    with pytest.raises(BundleError, match=r"tokenizer\.json is missing"):
        open_bundle(bundle_copy)


def test_a_newer_schema_is_refused_by_name(bundle_copy: Path) -> None:
    edit(bundle_copy, lambda data: data.update(schema_version=99, something_new=1))
    with pytest.raises(BundleError, match="schema 99, and this vtr-runtime reads up to 1; upgrade"):
        open_bundle(bundle_copy)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/../../secret", "a\\..\\b", "c:evil", ""])
def test_a_path_that_leads_outside_is_refused(bundle_copy: Path, name: str) -> None:
    (bundle_copy.parent / "secret").write_text("x")
    edit(bundle_copy, lambda data: data["files"].update({name: {"sha256": "0" * 64, "size": 1}}))
    with pytest.raises(BundleError, match="leads outside the bundle"):
        open_bundle(bundle_copy)


def test_a_link_that_leads_outside_is_refused(bundle_copy: Path) -> None:
    target = bundle_copy.parent / "moved.json"
    (bundle_copy / "tokenizer.json").rename(target)
    (bundle_copy / "tokenizer.json").symlink_to(target)
    with pytest.raises(BundleError, match="leads outside the bundle"):
        open_bundle(bundle_copy)


def test_edited_settings_do_not_pass_for_the_exported_ones(bundle_copy: Path) -> None:
    edit(bundle_copy, lambda data: data["frames"].update(count=6))
    with pytest.raises(BundleError, match="space does not match its own settings"):
        open_bundle(bundle_copy)


def test_graphs_that_are_not_hashed_are_refused(bundle_copy: Path) -> None:
    edit(bundle_copy, lambda data: data["files"].pop("video.onnx"))
    with pytest.raises(BundleError, match=r"gives no hash for video\.onnx"):
        open_bundle(bundle_copy)


@pytest.mark.parametrize(
    ("content", "words"),
    [("{", "is not JSON"), ("[]", "does not say format vtr-bundle"), ('{"format": "vtr-bundle"}', "malformed at")],
)
def test_what_is_no_manifest_is_named(bundle_copy: Path, content: str, words: str) -> None:
    (bundle_copy / "manifest.json").write_text(content)
    with pytest.raises(BundleError, match=words):
        open_bundle(bundle_copy)


def test_a_huge_manifest_is_not_read(bundle_copy: Path) -> None:
    with (bundle_copy / "manifest.json").open("r+b") as file:
        file.truncate(1 << 30)
    with pytest.raises(BundleError, match="larger than"):
        open_bundle(bundle_copy)


def test_what_is_no_bundle_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="is not a folder"):
        open_bundle(tmp_path / "none")
    with pytest.raises(BundleError, match=r"holds no manifest\.json"):
        open_bundle(tmp_path)
