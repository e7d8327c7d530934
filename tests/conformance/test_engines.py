"""Engines without their GPU: graphs that build, engines that are whole and their own, and what is none of that."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import pytest

from vtr_conformance import engines
from vtr_conformance.engines import check_engines
from vtr_conformance.failures import EngineFailure, failure_of
from vtr_conformance.results import Report, Result
from vtr_runtime.bundle import open_bundle
from vtr_runtime.engines.profiles import ProfileRequest, Range
from vtr_runtime.engines.record import ENGINES, file_entries, read_record, write_record
from vtr_runtime.engines.tensorrt_build import BuildOptions, build_tensorrt
from vtr_runtime.errors import UnavailableError
from vtr_runtime.manifest import FileEntry, file_sha256

HOST: Any = SimpleNamespace(name="vtr-runtime", backend="trt-rtx", precision="fp32", note=None)
SIZES = (1, 2, 4)
Change = Callable[[Path], object]


def check(bundle: Path, backend: str = "trt-rtx", *, build: bool = False) -> list[Result]:
    return list(check_engines(HOST, open_bundle(bundle), backend, SIZES, build=build))


@pytest.fixture(scope="module")
def engine(small_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("engines")
    options = BuildOptions(profiles=ProfileRequest(Range(1, 2, 4), Range(1, 4, 8), Range(1, 4, 8)))
    record = build_tensorrt(open_bundle(small_bundle), "trt-rtx", options, engine_dir=folder)
    return folder / record.id


@pytest.fixture
def held(bundle_copy: Path, engine: Path) -> Path:
    """The bundle with a copy of the engine, whose folder this is."""
    folder = bundle_copy / ENGINES / engine.name
    folder.mkdir(parents=True)
    for file in engine.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def test_graphs_build_for_gpus_that_are_not_here(small_bundle: Path) -> None:
    results = check(small_bundle)
    assert [(r.status, r.case) for r in results] == [
        ("pass", "video, for SM86, SM89, SM120"),
        ("pass", "text, for SM86, SM89, SM120"),
    ]
    assert all("builds with tensorrt-rtx" in r.where and "matrix products" in r.where for r in results)
    report = Report(tuple(results))
    assert not report.passed  # it ran nothing
    assert "nothing was checked" in report.verdict
    embeddings = tuple(Result("h", "b", stage, "c", "pass") for stage in ("aligned", "video_embedding"))
    assert Report((*results, *embeddings)).passed


def test_an_engine_of_the_bundle_is_looked_at_and_not_built_again(held: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(engines, "run_request", lambda request, *_, **__: asked.append(request.name))
    monkeypatch.setattr(engines, "_products", str)
    bundle = held.parents[1]
    assert {(r.status, r.case) for r in check(bundle)} == {
        ("pass", f"{graph}, {held.name}") for graph in ("video", "text")
    }
    assert asked == []
    assert len(check(bundle, build=True)) == 4
    assert asked == ["video", "text"]


def of_other_weights(folder: Path) -> None:
    edit(folder, core="0" * 64)


def damaged(folder: Path) -> None:
    plan = folder / "text.plan"
    data = bytearray(plan.read_bytes())
    data[len(data) // 2] ^= 1
    plan.write_bytes(data)


def cut_off(folder: Path) -> None:
    (folder / "video.plan").unlink()


def no_plan(folder: Path) -> None:
    """Hashed as it is, but the library does not know it."""
    (folder / "video.plan").write_bytes(b"ftrt" + bytes(4096))
    edit(folder)


def other_types(folder: Path) -> None:
    used = json.loads((folder / "engine.json").read_text())["precision_used"]
    edit(folder, precision_used={**used, "text": {**used["text"], "counts": {"fp16": 20}}})


def one_graph(folder: Path) -> None:
    (folder / "text.plan").unlink()
    edit(folder)


def malformed(folder: Path) -> None:
    (folder / "engine.json").write_text("{}")


def edit(folder: Path, **changes: Any) -> None:
    """Write engine.json anew, with the files' hashes as they are."""
    record = read_record(folder)
    data = {**record.model_dump(mode="json"), "files": {n: e.model_dump() for n, e in file_entries(folder).items()}}
    write_record(folder, type(record).model_validate({**data, **changes}))


@pytest.mark.parametrize(
    ("change", "words", "failed"),
    [
        (of_other_weights, "was built from other graphs or weights than this bundle's", 2),
        (damaged, "is damaged: text.plan is not the file that was built", 2),
        (cut_off, "lacks its file video.plan", 2),
        (no_plan, "has in video.plan no plan of tensorrt-rtx", 1),
        (other_types, "has no matrix product of text in fp32", 1),
        (one_graph, "holds no plan of text", 1),
        (malformed, "engine.json is malformed at", 1),
    ],
)
def test_an_engine_that_is_not_the_bundles_own_fails(held: Path, change: Change, words: str, failed: int) -> None:
    change(held)
    found = [result for result in check(held.parents[1]) if result.status == "fail"]
    assert len(found) == failed
    assert all(words in result.where for result in found)
    assert isinstance(failure_of(found[0]), EngineFailure)


def test_a_graph_that_cannot_be_built_fails_alone(bundle_copy: Path) -> None:
    proto = onnx.load(bundle_copy / "text.onnx")
    node = next(node for node in proto.graph.node if node.op_type == "LayerNormalization")
    node.op_type = "NoSuchOperator"
    onnx.save(proto, bundle_copy / "text.onnx")
    manifest = json.loads((bundle_copy / "manifest.json").read_text())
    path = bundle_copy / "text.onnx"
    manifest["files"]["text.onnx"] = FileEntry(sha256=file_sha256(path), size=path.stat().st_size).model_dump()
    (bundle_copy / "manifest.json").write_text(json.dumps(manifest))
    found = {result.case.split(",")[0]: result for result in check(bundle_copy)}
    assert {graph: result.status for graph, result in found.items()} == {"video": "pass", "text": "fail"}
    assert "cannot read text.onnx: NoSuchOperator" in found["text"].where


def test_what_cannot_be_built_here_is_not_run(small_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [result] = check(small_bundle, "trt")
    assert (result.status, "on the GPU that runs the engine alone" in result.hint) == ("not_run", True)

    def absent(_: str) -> None:
        raise UnavailableError("tensorrt-rtx is not installed")

    monkeypatch.setattr(engines, "load_tensorrt", absent)
    [result] = check(small_bundle)
    assert (result.status, result.hint) == ("not_run", "tensorrt-rtx is not installed")


def test_an_engine_is_looked_at_without_its_library(held: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(_: str) -> None:
        raise UnavailableError("tensorrt-rtx is not installed")

    monkeypatch.setattr(engines, "load_tensorrt", absent)
    assert {result.status for result in check(held.parents[1])} == {"pass"}
    damaged(held)
    assert {result.status for result in check(held.parents[1])} == {"fail"}


@pytest.mark.parametrize("backend", ["auto", "onnx-cpu", "openvino", "typed-graph"])
def test_other_backends_have_no_such_stage(small_bundle: Path, backend: str) -> None:
    assert check(small_bundle, backend) == []
