"""engine.json: written last, read with care, and checked before any engine is deserialised."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vtr_runtime.bundle import Bundle, open_bundle
from vtr_runtime.engines import EngineRecord, check_record, core_hash, find_engines, read_record, write_record
from vtr_runtime.engines.device import DeviceInfo, host_platform
from vtr_runtime.engines.record import ENGINE_JSON, file_entries
from vtr_runtime.errors import BackendError

ADA = DeviceInfo("RTX 4090", "89", "13.0", 24 << 30, 20 << 30, False)
ORIN = DeviceInfo("Orin", "87", "12.6", 8 << 30, 4 << 30, True)
HOPPER = DeviceInfo("H100", "90", "13.0", 80 << 30, 70 << 30, False)


@pytest.fixture
def bundle(small_bundle: Path) -> Bundle:
    return open_bundle(small_bundle)


@pytest.fixture
def make(bundle: Bundle, tmp_path: Path) -> Callable[..., tuple[Path, EngineRecord]]:
    """An engine folder with one plan, and its record with what the test changes."""

    def made(name: str = "trt-fp16-sm89", **changes: Any) -> tuple[Path, EngineRecord]:
        folder = tmp_path / "engines" / name
        folder.mkdir(parents=True)
        (folder / "text.plan").write_bytes(b"a plan of some length")
        values = {
            "id": name,
            "target": "trt",
            "core": core_hash(bundle.manifest),
            "precision": "fp16",
            "precision_used": {},
            "library": "tensorrt",
            "library_version": "10.13.2.6",
            "capabilities": ("89",),
            "platform": host_platform(),
            "files": file_entries(folder),
            "seconds": 1.0,
        }
        record = EngineRecord.model_validate({**values, **changes})
        write_record(folder, record)
        return folder, record

    return made


def check(bundle: Bundle, folder: Path, *, device: DeviceInfo | None = ADA, version: str = "10.13.2.6") -> None:
    record = read_record(folder)
    check_record(record, bundle.manifest, device, folder=folder, bundle=Path("my bundle"), library_version=version)


def test_the_core_is_the_hash_of_the_files_hashes(bundle: Bundle) -> None:
    names = json.dumps({n: e.sha256 for n, e in bundle.manifest.files.items()}, sort_keys=True, separators=(",", ":"))
    assert core_hash(bundle.manifest) == hashlib.sha256(names.encode()).hexdigest()


def test_an_engine_of_this_device_is_accepted(bundle: Bundle, make: Callable[..., Any]) -> None:
    folder, record = make()
    assert read_record(folder) == record
    check(bundle, folder)
    assert find_engines(folder.parent) == [(folder, record)]


MISMATCHES: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"core": "0" * 64}, {}, "was built from other graphs or weights than this bundle's (core 000000000000)"),
    ({"platform": "plan9-mips"}, {}, "was built for plan9-mips, and this is "),
    ({}, {"version": "10.13.3.9"}, "was built with tensorrt 10.13.2.6, and 10.13.3.9 is installed"),
    ({"version_compatible": True}, {"version": "10.9.0.1"}, "was built with tensorrt 10.13.2.6, and 10.9.0.1"),
    ({"version_compatible": True}, {"version": "11.4.0.1"}, "was built with tensorrt 10.13.2.6, and 11.4.0.1"),
    ({}, {"device": None}, "needs an NVIDIA GPU of SM89, and none was found"),
    ({}, {"device": HOPPER}, "was built for SM89, and this GPU is H100 of SM90"),
    ({"hardware_compatibility": "ampere+"}, {"device": ORIN}, "was built for SM89, and this GPU is Orin of SM87"),
    ({"hardware_compatibility": "same-capability"}, {"device": HOPPER}, "was built for SM89, and this GPU is H100"),
]


@pytest.mark.parametrize(("changes", "host", "sentence"), MISMATCHES)
def test_each_mismatch_is_one_sentence_with_the_command(
    bundle: Bundle, make: Callable[..., Any], changes: dict[str, Any], host: dict[str, Any], sentence: str
) -> None:
    folder, _ = make(**changes)
    with pytest.raises(BackendError) as caught:
        check(bundle, folder, **host)
    message = str(caught.value)
    assert message.startswith(f"engine trt-fp16-sm89 {sentence}")
    assert message.endswith("; build it here: vtr-runtime build 'my bundle' --target trt --overwrite")
    assert "\n" not in message


def test_compatible_engines_are_accepted_elsewhere(bundle: Bundle, make: Callable[..., Any]) -> None:
    folder, _ = make(version_compatible=True, hardware_compatibility="ampere+")
    check(bundle, folder, device=HOPPER, version="10.14.0.1")
    rtx, _ = make("trt-rtx-fp16-sm86-89", target="trt-rtx", capabilities=("86", "89"), library="tensorrt-rtx",
                  platform=f"windows-{host_platform().partition('-')[2]}")  # fmt: skip
    check(bundle, rtx)


def test_a_truncated_plan_and_a_changed_one_are_named(bundle: Bundle, make: Callable[..., Any]) -> None:
    folder, _ = make()
    plan = folder / "text.plan"
    whole = plan.read_bytes()
    plan.write_bytes(whole[:-3])
    with pytest.raises(BackendError, match=r"is damaged: text\.plan is not the file that was built; build it here"):
        check(bundle, folder)
    plan.write_bytes(whole[:-1] + b"?")
    with pytest.raises(BackendError, match=r"is damaged: text\.plan"):
        check(bundle, folder)
    plan.unlink()
    with pytest.raises(BackendError, match=r"lacks its file text\.plan"):
        check(bundle, folder)


def test_an_unfinished_build_is_never_found(make: Callable[..., Any]) -> None:
    folder, _ = make()
    (folder / ENGINE_JSON).unlink()
    assert find_engines(folder.parent) == []
    assert find_engines(folder.parent / "nowhere") == []
    staged = folder.rename(folder.parent / ".trt-fp16-sm89.x.part")
    (staged / ENGINE_JSON).write_text("{}")
    assert find_engines(folder.parent) == []
    with pytest.raises(BackendError, match="its build was not finished; delete it and build again"):
        read_record(folder)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "is not JSON"),
        ("[]", "is malformed at ''"),
        ('{"schema_version": 99}', r"has schema 99, and this vtr-runtime reads up to 1; upgrade it: pip install -U"),
        ('{"format": "another"}', "is malformed at 'format'"),
    ],
)
def test_a_foreign_record_is_refused(make: Callable[..., Any], text: str, sentence: str) -> None:
    folder, _ = make()
    (folder / ENGINE_JSON).write_text(text)
    with pytest.raises(BackendError, match=sentence):
        read_record(folder)
