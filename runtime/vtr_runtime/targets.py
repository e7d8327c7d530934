"""The format table: what each target of an export is, and what it can honour.

Help, validation, documentation and tests read this one table. An option that a target does not honour is refused with
the reason that stands here."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from .errors import UsageError
from .precision import PRECISIONS, Precision

OPSETS = (18, 20, 23)
# What may be set for engines; each is a command-line option of the same name with dashes.
ENGINE_OPTIONS = (
    "batch",
    "text_batch",
    "candidates",
    "sm",
    "workspace",
    "timing_cache",
    "version_compatible",
    "hardware_compatible",
    "refittable",
    "strip",
    "optimization_level",
)


@dataclass(frozen=True)
class Opset:
    number: int
    reason: str


@dataclass(frozen=True)
class Target:
    """`precisions`: those it has, each with the ONNX opset of its graphs. `typed`: whether a precision is written into
    the graphs, or is a hint when they are compiled. `refused`: options and precisions that do not exist, and why."""

    name: str
    title: str
    makes: str
    runs_on: str
    precisions: dict[Precision, Opset]
    default: Precision
    typed: bool
    options: frozenset[str] = frozenset()
    refused: dict[str, str] = field(default_factory=dict)
    engine: bool = False  # built beside the graphs, by a library that may be absent

    def check_precision(self, precision: Precision) -> None:
        if precision not in self.precisions:
            raise UsageError(
                f"target {self.name} has no {precision}: {self.refused[precision]}; choose from "
                f"{', '.join(self.precisions)}"
            )

    def check_options(self, given: Iterable[str]) -> None:
        for option in given:
            if option not in self.options:
                raise UsageError(f"--{option.replace('_', '-')} is not for target {self.name}: {self.refused[option]}")


_EVERY_BATCH = "its graphs take every batch on every device; there is nothing to tune"
_NO_ENGINE = "it is no TensorRT engine"
_PORTABLE = Opset(20, "ONNX Runtime from 1.18 on reads it, it has Gelu as one operator, and 23 is no faster there")


def _no_builder(reason: str) -> dict[str, str]:
    return dict.fromkeys(ENGINE_OPTIONS, reason)


_TRT_OPTIONS = frozenset(ENGINE_OPTIONS) - {"sm"}
_RTX_REFUSED = {
    "timing_cache": "TensorRT-RTX times no kernels when it builds; they are chosen, and cached, where the engine runs",
    "version_compatible": "TensorRT-RTX has no lean runtime to load such an engine with",
    "hardware_compatible": "one engine holds several capabilities: name them with --sm",
}

TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Target(
            name="onnx",
            title="ONNX graphs",
            makes="video.onnx and text.onnx for ONNX Runtime",
            runs_on="any CPU or GPU that ONNX Runtime has a provider for; bf16 and a true fp16 on GPUs alone",
            precisions=dict.fromkeys(PRECISIONS, _PORTABLE),
            default="fp32",
            typed=True,
            refused=_no_builder(_EVERY_BATCH),
        ),
        Target(
            name="trt",
            title="TensorRT 10 and 11",
            makes="strongly typed graphs, and engines where TensorRT and its GPU are at hand",
            runs_on="NVIDIA GPUs from SM75 on, Jetson included; bf16 from SM80 on",
            precisions=dict.fromkeys(PRECISIONS, Opset(20, "the highest that TensorRT 10.3 of JetPack 6 reads")),
            default="fp16",
            typed=True,
            options=_TRT_OPTIONS,
            refused={"sm": "it builds for the GPU that is there; trt-rtx builds for several"},
            engine=True,
        ),
        Target(
            name="trt-rtx",
            title="TensorRT for RTX 1.x",
            makes="one engine a graph for several GPU capabilities, built without a GPU",
            runs_on="RTX GPUs: Ampere (86), Ada (89), Blackwell (120), and Turing (75) without bf16",
            precisions={
                "fp32": Opset(20, "it has no fused kernel for Attention in fp32, and would write it out anyway"),
                "fp16": Opset(23, "Attention is one operator, which maps to its fused kernel"),
                "bf16": Opset(23, "Attention is one operator, which maps to its fused kernel"),
                "int8": Opset(20, "what is not int8 stays fp32, where it has no fused kernel for Attention"),
            },
            default="fp16",
            typed=True,
            options=frozenset(ENGINE_OPTIONS) - frozenset(_RTX_REFUSED),
            refused=_RTX_REFUSED,
            engine=True,
        ),
        Target(
            name="openvino",
            title="OpenVINO IR",
            makes="an IR of each graph; the precision is a compile hint, always set and read back",
            runs_on="x86 and ARM CPUs; bf16 needs AVX512-BF16 or AMX to be worth it",
            precisions={
                "fp32": Opset(20, "its ONNX reader has Gelu as one operator, and 23 is no faster there"),
                "bf16": Opset(20, "as fp32: the graphs stay fp32, bf16 is the compile hint"),
                "int8": Opset(20, "as fp32, with Q/DQ"),
            },
            default="fp32",
            typed=False,
            refused={"fp16": "its CPU plug-in computes fp16 on few processors; bf16 is its fast type"}
            | _no_builder(_NO_ENGINE),
            engine=True,
        ),
        Target(
            name="triton",
            title="Triton model repository",
            makes="a repository with both towers, tokenizer and frame reader as models, and ensembles",
            runs_on="Triton Inference Server's ONNX Runtime and Python backends",
            precisions=dict.fromkeys(PRECISIONS, _PORTABLE),
            default="fp32",
            typed=True,
            options=frozenset({"batch", "text_batch"}),
            refused=_no_builder(_NO_ENGINE),
        ),
    )
}


@dataclass(frozen=True)
class GraphPlan:
    """What the targets of one bundle have in common: its precision, what is written into the graphs, their opset, and
    whether the operator Attention may be told to compute its softmax in fp32."""

    precision: Precision
    graph_precision: Precision
    opset: int
    reason: str
    fp32_softmax: bool = True


def find_target(name: str) -> Target:
    if name not in TARGETS:
        raise UsageError(f"there is no target '{name}'; choose from: {', '.join(TARGETS)}")
    return TARGETS[name]


def plan_graphs(names: Iterable[str], precision: Precision | None = None, opset: int | None = None) -> GraphPlan:
    """One bundle has one set of graphs: find what all its targets can read, or refuse with the reason."""
    targets = [find_target(name) for name in names]
    if not targets:
        raise UsageError(f"give at least one --target: {', '.join(TARGETS)}")
    defaults = {target.default for target in targets}
    if precision is None and len(defaults) > 1:
        wanted = ", ".join(f"{target.name} {target.default}" for target in targets)
        raise UsageError(f"these targets differ in their usual precision ({wanted}); say which with --precision")
    chosen: Precision = precision or targets[0].default
    for target in targets:
        target.check_precision(chosen)
    # int8 is Q/DQ in the graph for everyone; fp16 and bf16 are types in it for some and a hint for others.
    written = {chosen if target.typed or chosen == "int8" else "fp32" for target in targets}
    if len(written) > 1:
        hinted = [target.name for target in targets if not target.typed]
        raise UsageError(
            f"{', '.join(hinted)} takes fp32 graphs with {chosen} as a hint, the other targets take {chosen} graphs; "
            "export two bundles: they share one embedding space"
        )
    lowest = min((target.precisions[chosen] for target in targets), key=lambda found: found.number)
    # TensorRT's parser refuses the attribute.
    free = not any(target.name in ("trt", "trt-rtx") for target in targets)
    if opset is None:
        return GraphPlan(chosen, written.pop(), lowest.number, lowest.reason, free)
    if opset not in OPSETS:
        raise UsageError(f"--opset {opset} is not made here; choose from {', '.join(map(str, OPSETS))}")
    for target in targets:
        most = target.precisions[chosen]
        if target.name in ("trt", "trt-rtx") and opset > most.number:
            raise UsageError(f"target {target.name} at {chosen} takes at most opset {most.number}: {most.reason}")
    return GraphPlan(chosen, written.pop(), opset, "asked for", free)
