"""The search for islands names the module that a precision breaks, and ranks are compared as they should be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from vtr_export.precision.islands import Islands
from vtr_export.precision.ranks import compare, count_flips
from vtr_export.precision.search import find_islands, groups_of
from vtr_runtime.errors import GateError

WIDTH = 16


def stack(path: Path, *, gain: float, blocks: int = 4) -> Path:
    """x through blocks `x + W_2 relu(W_1 x)`, and the L2 norm. In block 2 the first product grows by `gain` and the
    second shrinks by it: the function is the same, its inner numbers are not."""
    rng = np.random.default_rng(0)
    nodes, weights = [], []

    def add(operator: str, inputs: list[str], out: str, module: str) -> None:
        node = helper.make_node(operator, inputs, [out], name=out)
        node.metadata_props.append(onnx.StringStringEntryProto(key="module", value=module))
        nodes.append(node)

    x = "x"
    for block in range(blocks):
        root = f"text.backbone.transformer.resblocks.{block}"
        factor = gain if block == 2 else 1.0
        for part, scale in (("c_fc", factor), ("c_proj", 1.0 / factor)):
            weight = rng.standard_normal((WIDTH, WIDTH)) * WIDTH**-0.5 * scale
            weights.append(numpy_helper.from_array(weight.astype(np.float32), f"{block}.{part}"))
        add("MatMul", [x, f"{block}.c_fc"], f"{block}.hidden", f"{root}.mlp.c_fc")
        add("Relu", [f"{block}.hidden"], f"{block}.active", f"{root}.mlp.c_fc")
        add("MatMul", [f"{block}.active", f"{block}.c_proj"], f"{block}.out", f"{root}.mlp.c_proj")
        add("Add", [x, f"{block}.out"], f"{block}.x", root)
        x = f"{block}.x"
    weights.append(numpy_helper.from_array(np.array([-1]), "axes"))
    add("ReduceL2", [x, "axes"], "norm", "text")
    add("Div", [x, "norm"], "embedding", "text")
    spec = [helper.make_tensor_value_info(name, 1, ["batch", WIDTH]) for name in ("x", "embedding")]
    graph = helper.make_graph(nodes, "g", spec[:1], spec[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


FEEDS = [{"x": np.random.default_rng(seed).standard_normal((4, WIDTH)).astype(np.float32)} for seed in range(2)]


def test_defaults_that_are_enough_stay(tmp_path: Path) -> None:
    result = find_islands({"text": stack(tmp_path / "text.onnx", gain=1.0)}, {"text": FEEDS}, precision="fp16")
    assert result.islands == Islands()
    assert (result.effects, result.runs) == ([], 2)
    assert 0.9999 < result.cosines["text"] < 1


def test_a_module_that_overflows_is_found_by_name(tmp_path: Path) -> None:
    said: list[str] = []
    path = stack(tmp_path / "text.onnx", gain=1e6)
    result = find_islands({"text": path}, {"text": FEEDS}, precision="fp16", say=said.append)
    added = [rule for rule in result.islands.rules if rule not in Islands().rules]
    assert added
    assert all(rule.startswith("text.backbone.transformer.resblocks.2.mlp") for rule in added)
    assert result.cosines["text"] >= 0.9999
    block = next(effect for effect in result.effects if effect.module == "text.backbone.transformer.resblocks.2")
    assert block.kept
    assert block.error == float("inf")
    others = [e for e in result.effects if ".resblocks.2" not in e.module]
    assert len(others) == 4  # three blocks, and the norm
    assert not any(effect.kept or effect.error > 1e-4 for effect in others)
    assert "text.backbone.transformer.resblocks.2.mlp.c_fc" in result.table()
    assert len(said) == 2
    assert result.runs <= 20


def test_the_islands_found_are_enough_for_the_next_export(tmp_path: Path) -> None:
    graphs = {"text": stack(tmp_path / "text.onnx", gain=1e6)}
    find_islands(graphs, {"text": FEEDS}, precision="fp16").islands.save(tmp_path / "islands.json")
    again = find_islands(graphs, {"text": FEEDS}, precision="fp16", start=Islands.load(tmp_path / "islands.json"))
    assert (again.runs, again.effects) == (2, [])


def test_bf16_needs_no_island_for_what_only_overflows(tmp_path: Path) -> None:
    path = stack(tmp_path / "text.onnx", gain=1e6)
    assert find_islands({"text": path}, {"text": FEEDS}, precision="bf16").islands == Islands()


def test_groups_are_blocks(tmp_path: Path) -> None:
    groups = groups_of(stack(tmp_path / "text.onnx", gain=1.0))
    root = "text.backbone.transformer.resblocks.1"
    assert groups[root] == [f"{root}.mlp.c_fc", f"{root}.mlp.c_proj", root]
    assert groups["text"] == ["text"]
    assert len(groups) == 5


def test_a_graph_beyond_help_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vtr_export.precision import search

    monkeypatch.setitem(search.COSINE_LOSS, "fp16", -1e-9)
    with pytest.raises(GateError, match=r"text\.onnx misses the gate for fp16 even with .* export in fp32"):
        find_islands({"text": stack(tmp_path / "text.onnx", gain=1.0)}, {"text": FEEDS}, precision="fp16")


def test_flips_inside_the_noise_are_told_apart() -> None:
    want = np.array([[0.9, 0.1, 0.0], [0.5, 0.499, 0.0], [0.2, 0.3, 0.1]])
    got = np.array([[0.1, 0.9, 0.0], [0.499, 0.5, 0.0], [0.2, 0.3, 0.1]])
    assert count_flips(want, got, noise=0.01) == (2, 1)
    assert count_flips(want, got, noise=0.0) == (2, 2)
    assert count_flips(want, want, noise=0.0) == (0, 0)
    assert count_flips(want[:, :1], got[:, :1], noise=0.0) == (0, 0)


def test_cosines_are_the_worst_rows() -> None:
    want = np.eye(3, dtype=np.float32)
    angle = 0.01
    got: Any = want.copy()
    got[1] = [np.sin(angle), np.cos(angle), 0]
    moved = compare(want, got)
    assert moved.cosine == pytest.approx(np.cos(angle), abs=1e-7)
    assert moved.largest == pytest.approx(np.sin(angle), abs=1e-6)
    got[0, 0] = np.nan
    assert compare(want, got).error == float("inf")
