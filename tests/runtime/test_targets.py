"""The format table: complete, consistent, and the documentation's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from vtr_runtime.engines import options as options_module
from vtr_runtime.errors import UsageError
from vtr_runtime.precision import PRECISIONS, Precision
from vtr_runtime.targets import ENGINE_OPTIONS, OPSETS, TARGETS, GraphPlan, Target, find_target, plan_graphs

EACH = pytest.mark.parametrize("target", TARGETS.values(), ids=lambda target: target.name)
PAGE = Path(__file__).parents[2] / "docs" / "targets.md"


@EACH
def test_what_a_target_lacks_has_a_reason_and_what_it_has_none(target: Target) -> None:
    lacks = (set(ENGINE_OPTIONS) - target.options) | (set(PRECISIONS) - set(target.precisions))
    assert {name for name in lacks if len(target.refused.get(name, "")) < 15} == set()
    assert target.options <= set(ENGINE_OPTIONS)
    assert set(target.refused) <= {*ENGINE_OPTIONS, *PRECISIONS}


@EACH
def test_each_is_refused_with_its_reason_and_the_others_pass(target: Target) -> None:
    target.check_options(sorted(target.options))
    for option in set(ENGINE_OPTIONS) - target.options:
        with pytest.raises(UsageError) as caught:
            target.check_options([option])
        flag = f"--{option.replace('_', '-')}"
        assert str(caught.value) == f"{flag} is not for target {target.name}: {target.refused[option]}"
    for precision in PRECISIONS:
        if precision in target.precisions:
            target.check_precision(precision)
            continue
        with pytest.raises(UsageError, match=f"^target {target.name} has no {precision}: .*; choose from fp32"):
            target.check_precision(precision)


@EACH
def test_a_target_plans_its_default_at_an_opset_that_exists(target: Target) -> None:
    assert target.default in target.precisions
    assert all(opset.number in OPSETS and opset.reason for opset in target.precisions.values())
    plan, opset = plan_graphs([target.name]), target.precisions[target.default]
    assert (plan.precision, plan.opset, plan.reason) == (target.default, opset.number, opset.reason)


def test_every_option_of_the_command_line_stands_in_the_table() -> None:
    @options_module.engine_options
    def command(**_: Any) -> None: ...

    declared = {option.name for option in command.__click_params__}  # type: ignore[attr-defined]
    assert declared == set(ENGINE_OPTIONS)


@pytest.mark.parametrize(
    ("names", "precision", "opset", "want"),
    [
        (["onnx"], None, None, ("fp32", "fp32", 20, True)),
        (["onnx"], "bf16", 23, ("bf16", "bf16", 23, True)),
        (["trt"], None, None, ("fp16", "fp16", 20, False)),  # JetPack's TensorRT has no Attention
        (["trt-rtx"], None, None, ("fp16", "fp16", 23, False)),
        (["trt-rtx"], "fp32", None, ("fp32", "fp32", 20, False)),
        (["trt-rtx"], "int8", None, ("int8", "int8", 20, False)),
        (["trt", "trt-rtx"], None, None, ("fp16", "fp16", 20, False)),
        (["trt-rtx", "onnx"], "bf16", None, ("bf16", "bf16", 20, False)),
        (["openvino"], None, None, ("fp32", "fp32", 20, True)),
        (["openvino"], "bf16", None, ("bf16", "fp32", 20, True)),  # a hint
        (["openvino", "onnx"], "int8", None, ("int8", "int8", 20, True)),
        (["onnx", "openvino", "triton"], None, None, ("fp32", "fp32", 20, True)),
        (["trt"], None, 18, ("fp16", "fp16", 18, False)),
    ],
)
def test_what_targets_have_in_common(
    names: list[str], precision: Precision | None, opset: int | None, want: tuple[Precision, Precision, int, bool]
) -> None:
    plan = plan_graphs(names, precision, opset)
    assert plan == GraphPlan(want[0], want[1], want[2], plan.reason, want[3])
    assert (plan.reason == "asked for") is (opset is not None)


@pytest.mark.parametrize(
    ("names", "precision", "opset", "words"),
    [
        ([], None, None, "give at least one --target: onnx, trt, trt-rtx, openvino, triton"),
        (["coreml"], None, None, "there is no target 'coreml'; choose from: onnx"),
        (["onnx", "trt"], None, None, "differ in their usual precision (onnx fp32, trt fp16); say which"),
        (["openvino"], "fp16", None, "target openvino has no fp16: its CPU plug-in"),
        (["onnx", "openvino"], "fp16", None, "target openvino has no fp16"),
        (["onnx", "openvino"], "bf16", None, "openvino takes fp32 graphs with bf16 as a hint, the other targets take"),
        (["onnx"], None, 19, "--opset 19 is not made here; choose from 18, 20, 23"),
        (["trt"], None, 23, "target trt at fp16 takes at most opset 20: the highest that TensorRT 10.3"),
        (["trt-rtx"], "fp32", 23, "target trt-rtx at fp32 takes at most opset 20: it has no fused kernel"),
        (["onnx", "trt"], "fp16", 23, "target trt at fp16 takes at most opset 20"),
    ],
)
def test_what_targets_have_not_in_common_is_refused(
    names: list[str], precision: Precision | None, opset: int | None, words: str
) -> None:
    with pytest.raises(UsageError) as caught:
        plan_graphs(names, precision, opset)
    assert words in str(caught.value)


def test_find_target() -> None:
    assert find_target("trt-rtx") is TARGETS["trt-rtx"]
    with pytest.raises(UsageError, match="there is no target 'tensorrt'"):
        find_target("tensorrt")


def test_the_documentation_is_this_table() -> None:
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in PAGE.read_text(encoding="utf-8").splitlines()
        if line.startswith("|")
    ]
    head = rows.index(["target", "makes", "runs on", *PRECISIONS])
    for row, target in zip(rows[head + 2 :], TARGETS.values(), strict=False):
        opsets = [target.precisions.get(precision) for precision in PRECISIONS]
        numbers = [str(opset.number) if opset else "-" for opset in opsets]
        assert row == [target.name, target.makes, target.runs_on, *numbers]
    page = PAGE.read_text(encoding="utf-8")
    honoured = {row[0]: row[2] for row in rows if row[0].startswith("`--") and len(row) == 3}
    for option in ENGINE_OPTIONS:
        flag = f"--{option.replace('_', '-')}"
        assert flag in page
        [targets] = [value for name, value in honoured.items() if f"`{flag}`" in name or f"`{flag} " in name]
        assert targets.split(", ") == [target.name for target in TARGETS.values() if option in target.options], flag
