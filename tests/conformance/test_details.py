"""What a report shows and no gate judges: errors by module, operators, speed, similarities, what was checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx_ir as ir
import pytest
import torch
from click.testing import CliRunner

from vtr_conformance.cases import Case, read_cases
from vtr_conformance.details import score_pairs, speed
from vtr_conformance.details.about import command_line
from vtr_conformance.details.modules import graph_feeds, module_errors, relative_error
from vtr_conformance.details.operators import count_operators, rewrite
from vtr_conformance.details.records import Wanted, changed_kinds
from vtr_conformance.hosts import RuntimeHost
from vtr_conformance.hosts.base import Arrays
from vtr_conformance.run import run
from vtr_export.precision.execute import TypedGraph
from vtr_export.precision.float64 import Float64Graph
from vtr_export.precision.islands import Islands
from vtr_export.precision.lower import lower_precision
from vtr_runtime.bundle import Bundle, open_bundle
from vtr_runtime.errors import BackendError
from vtr_runtime.model import Model


@pytest.fixture(scope="module")
def bundle(small_bundle: Path) -> Bundle:
    return open_bundle(small_bundle)


@pytest.fixture(scope="module")
def feeds(bundle: Bundle) -> dict[str, Arrays]:
    return graph_feeds(bundle, read_cases(bundle))


def test_float64_is_the_trained_model_in_float64(
    bundle: Bundle, feeds: dict[str, Arrays], small_checkpoint: Path
) -> None:
    """PyTorch's own modules, all in float64, agree with the graph far beyond fp32."""
    from vtr_export.model.checkpoint import load_checkpoint

    model = load_checkpoint(small_checkpoint).model.eval().double()
    tensors = {name: torch.from_numpy(array) for feed in feeds.values() for name, array in feed.items()}
    with torch.inference_mode():
        want = {
            "text": model.text(tensors["input_ids"]).numpy(),
            "video": model.video(tensors["frames"], tensors["frame_mask"]).numpy(),
        }
    for name, expected in want.items():
        found = Float64Graph(bundle.file(f"{name}.onnx"))(feeds[name])["embedding"]
        in_fp32 = TypedGraph(bundle.file(f"{name}.onnx"))(feeds[name])["embedding"]
        assert found.dtype == expected.dtype == np.float64
        # Constants that were folded in fp32 at export are what is left.
        assert np.abs(found - expected).max() < 3e-7
        assert 0 < np.abs(in_fp32 - found).max() < 1e-5


def test_every_module_of_an_fp32_graph_is_near_float64(bundle: Bundle, feeds: dict[str, Arrays]) -> None:
    found = list(module_errors("text", bundle.file("text.onnx"), feeds["text"]))
    names = [item.module for item in found]
    assert names[0] == "text.backbone.token_embedding"
    assert names[-1] == "text"
    assert names.index("text.backbone.transformer.resblocks.0.attn") < names.index("text.alignment.network.latent")
    assert len(set(names)) == len(names)
    assert found[0].error == 0  # a row of a table is taken, not computed
    assert all(0 < item.error < 1e-5 for item in found[1:])
    assert sum(item.operators for item in found) <= len(list(ir.load(bundle.file("text.onnx")).graph))


def test_the_last_error_is_that_of_the_graphs_output(bundle: Bundle, feeds: dict[str, Arrays]) -> None:
    path = bundle.file("video.onnx")
    found = list(module_errors("video", path, feeds["video"]))
    got, want = (kind(path)(feeds["video"])["embedding"] for kind in (TypedGraph, Float64Graph))
    assert found[-1].module == "video.temporal"
    assert found[-1].error == pytest.approx(np.linalg.norm(got - want) / np.linalg.norm(want), rel=1e-6)


def test_rounding_is_seen_where_it_comes_in(bundle: Bundle, feeds: dict[str, Arrays], tmp_path: Path) -> None:
    """All of the text tower stays in fp32 but its last block: the error jumps there and not before."""
    inside = "text.backbone.transformer.resblocks.1"
    names = [item.module for item in module_errors("text", bundle.file("text.onnx"), feeds["text"])]
    kept = [f"op:*@{name}" for name in names if not name.startswith(inside)]
    lower_precision(bundle.file("text.onnx"), tmp_path / "text.onnx", precision="fp16", islands=Islands().also(kept))
    errors = {item.module: item.error for item in module_errors("text", tmp_path / "text.onnx", feeds["text"])}
    before = [errors[name] for name in names[: names.index(f"{inside}.ln_1")]]
    assert max(before) < 1e-6
    assert errors[f"{inside}.mlp.c_fc"] > 1e-4
    assert errors["text"] > 1e-5


def test_an_int8_graph_shows_what_quantising_costs(small_int8: Path, feeds: dict[str, Arrays]) -> None:
    """Activations of the exact run are not quantised, so the error is that of quantising and not of fp32."""
    errors = [item.error for item in module_errors("text", small_int8, feeds["text"])]
    assert 1e-4 < max(errors) < 1


@pytest.fixture(scope="module")
def small_int8(bundle: Bundle, feeds: dict[str, Arrays], tmp_path_factory: pytest.TempPathFactory) -> Path:
    from vtr_export.precision.quantize import quantize_graph

    target = tmp_path_factory.mktemp("int8") / "text.onnx"
    quantize_graph(bundle.file("text.onnx"), target, [feeds["text"]] * 32, external=False)
    return target


def test_relative_error_by_hand() -> None:
    want = torch.tensor([3.0, 4.0, -torch.inf])
    assert relative_error(torch.tensor([3.0, 4.5, -torch.inf]), want) == pytest.approx(0.1)
    assert relative_error(torch.tensor([3.0, 4.0, 0.0]), want) == float("inf")
    assert relative_error(torch.tensor([3.0, torch.nan, -torch.inf]), want) == float("inf")
    assert relative_error(torch.zeros(2), torch.zeros(2)) == 0
    assert relative_error(torch.ones(2), torch.zeros(2)) == float("inf")


def test_operators_are_counted_before_and_after_the_engine(bundle: Bundle) -> None:
    exported = count_operators(bundle.file("text.onnx"))
    after, why = rewrite(bundle.file("text.onnx"))
    assert why == ""
    assert after is not None
    assert after["com.microsoft.BiasGelu"] >= 1
    # Each takes the place of an Add and a Gelu.
    gelu = after.get("Gelu", 0) + after["com.microsoft.BiasGelu"]
    assert gelu == exported["Gelu"]
    assert sum(exported.values()) == len(list(ir.load(bundle.file("text.onnx")).graph))
    assert changed_kinds({"Add": 3, "Mul": 2}, {"Add": 1, "Mul": 2, "Fused": 2}) == [("Fused", 0, 2), ("Add", 3, 1)]


def test_a_graph_that_the_engine_refuses_is_told(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_bytes(bundle.file("text.onnx").read_bytes()[:1000])
    after, why = rewrite(tmp_path / "text.onnx")
    assert after is None
    assert why


class Clock(RuntimeHost):
    """Answers nothing, in a time of its own: seconds for the n-th call."""

    def __init__(self, model: Model, seconds: list[float]) -> None:
        super().__init__(model)
        self.seconds, self.asked = seconds, []

    def timed(self, graph: str, feed: Arrays) -> tuple[Arrays, float]:
        self.asked.append((graph, next(iter(feed.values())).shape))
        return {}, self.seconds[min(len(self.asked), len(self.seconds)) - 1]


def test_speed_is_the_median_without_the_first_call(small_model: Model, bundle: Bundle) -> None:
    host = Clock(small_model, [1.9, 0.1, 0.3, 0.2, 0.1, 0.1, 0.1, 0.1, 0.1])
    found, notes = speed.time_hosts([host], read_cases(bundle), batch=4)
    assert notes == []
    assert [(item.graph, item.batch) for item in found] == [("text", 1), ("text", 4), ("video", 1), ("video", 4)]
    assert (found[0].times, found[0].p50_ms) == (7, pytest.approx(100.0))
    text, video = ([shape for name, shape in host.asked if name == graph] for graph in ("text", "video"))
    assert {shape[0] for shape in text} == {shape[0] for shape in video} == {1, 4}
    assert {shape[1] for shape in text} == {12}  # the sentence's tokens, without padding


def test_a_long_call_is_timed_once(small_model: Model, bundle: Bundle) -> None:
    host = Clock(small_model, [30.0])
    found, _ = speed.time_hosts([host], read_cases(bundle), batch=1)
    assert [(item.graph, item.times, item.p50_ms) for item in found] == [("text", 1, 30e3), ("video", 1, 30e3)]


def test_a_host_that_fails_is_noted_and_the_others_go_on(small_model: Model, bundle: Bundle) -> None:
    class Broken(Clock):
        def timed(self, graph: str, feed: Arrays) -> tuple[Arrays, float]:  # noqa: ARG002
            raise BackendError("out of memory")

    hosts = [Broken(small_model, [1.0]), Clock(small_model, [1.0])]
    found, notes = speed.time_hosts(hosts, read_cases(bundle), batch=1)
    assert len(found) == 2
    assert notes == ["vtr-runtime onnx-cpu was not timed: out of memory"]


def test_pairs_are_the_reference_beside_the_host(
    small_model: Model, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Shifted(RuntimeHost):
        def answer(self, case: Case) -> Arrays | str:
            answer = super().answer(case)
            return answer if isinstance(answer, str) else {"scores": answer["scores"] + 0.5}

    cases = read_cases(bundle)
    [wanted] = [case.expected["scores"] for case in cases if case.stage == "ranking"]
    [pairs] = score_pairs.golden_pairs([Shifted(small_model)], cases)
    assert np.array_equal(pairs.reference, wanted.ravel())
    assert np.allclose(np.subtract(pairs.found, pairs.reference), 0.5, atol=1e-5)
    monkeypatch.setattr(score_pairs, "MAX_PAIRS", 10)
    [few] = score_pairs.golden_pairs([RuntimeHost(small_model)], cases)
    assert len(few.reference) == len(few.found) == 10
    assert few.reference[-1] == wanted[-1, -1]


def test_a_run_collects_what_is_wanted(small_bundle: Path, small_checkpoint: Path) -> None:
    found = run(small_bundle, checkpoint=small_checkpoint, wanted=Wanted(command="the command")).details
    assert found is not None
    manifest = open_bundle(small_bundle).manifest
    assert (found.about.space, found.about.command) == (manifest.space, "the command")
    assert {item.graph for item in found.modules} == {"video", "text"}
    assert {(item.host, item.graph) for item in found.latencies} == {
        (host, graph) for host in ("vtr-runtime", "pytorch") for graph in ("text", "video")
    }
    assert {item.host for item in found.scores} == {"vtr-runtime"}
    assert found.notes == ()
    for item in found.operators:
        assert item.expected is not None
        assert all(item.found[kind] >= count for kind, count in item.expected.items())
    small = run(small_bundle, wanted=Wanted(modules=False, speed=False)).details
    assert small is not None
    assert (small.modules, small.latencies, len(small.notes)) == ((), (), 2)
    assert all(item.expected is None for item in small.operators)
    assert run(small_bundle).details is None


def test_the_command_is_told_without_folders() -> None:
    """As it was given: options that were not, and the folders of files, are left out."""
    said: list[str] = []

    @click.command("run")
    @click.argument("bundle", type=click.Path(path_type=Path))
    @click.option("--ckpt", type=click.Path(path_type=Path))
    @click.option("--backend", multiple=True)
    @click.option("--host", multiple=True)
    @click.option("--speed/--no-speed", default=True)
    @click.option("--split", default="test")
    @click.pass_context
    def command(context: click.Context, **_: Any) -> None:
        said.append(command_line(context))

    given = ["/home/me/bundle", "--ckpt", "/home/me/best.pt", "--backend", "onnx-cpu", "--backend", "trt"]
    CliRunner().invoke(command, [*given, "--host", "node /home/me/host.js --x=/home/me/y", "--no-speed"])
    options = "--ckpt best.pt --backend onnx-cpu --backend trt --host 'node host.js --x=y' --no-speed"
    assert said == [f"vtr-conformance run BUNDLE {options}"]
