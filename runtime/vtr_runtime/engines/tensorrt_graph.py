"""One ONNX graph -> one plan, in a process of its own: python -m vtr_runtime.engines.tensorrt_graph REQUEST RESULT.

The builder is native code that may take the process with it: it crashes on some graphs, and the system kills it where
memory ends. In a child either is one sentence for the user."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

from ..errors import BackendError, VtrError
from ..manifest import Precision, Record
from ..publish import staged_file
from .memory import means_out_of_memory
from .record import PrecisionUsed, Shapes
from .tensorrt_library import BuilderLog, TensorRT, TensorRTTarget, last_error, load_tensorrt

TYPES = {
    "FLOAT": "fp32",
    "HALF": "fp16",
    "BF16": "bf16",
    "INT8": "int8",
    "FP8": "fp8",
    "INT32": "int32",
    "INT64": "int64",
}
NO_KERNEL = "not supported by a dedicated kernel"
PRODUCTS = ("MATRIX_MULTIPLY", "CONVOLUTION", "EINSUM", "ATTENTION_OUTPUT")
# What an engine inspector calls the types; TensorRT 10 and 11 word it differently.
REPORTED = {"fp16": ("half", "fp16"), "bf16": ("bfloat16", "bf16"), "int8": ("int8",), "fp32": ("float", "fp32")}


class GraphRequest(Record):
    target: TensorRTTarget
    name: str
    onnx: Path
    plan: Path
    log: Path
    layers: Path | None = None  # where the engine's own layer report goes, if the engine can be loaded here
    profiles: tuple[Shapes, ...]
    precision: Precision
    capabilities: tuple[str, ...] = ()  # of trt-rtx; without any, the GPU that is there
    workspace: int | None = None
    timing_cache: Path | None = None
    version_compatible: bool = False
    hardware: str = "none"
    refit: bool = False
    strip: bool = False
    level: int | None = None


class GraphResult(Record):
    """Either a plan was written, and `used` tells its types, or `error` is the sentence why not."""

    used: PrecisionUsed | None = None
    error: str | None = None


def build_graph(request: GraphRequest) -> GraphResult:
    """Parse, configure, build and write the plan; whatever fails is a BackendError that names the graph's file."""
    trt = load_tensorrt(request.target)
    log = BuilderLog(trt, request.log)
    try:
        log.step(f"{request.name}: {request.onnx.name} with {trt.name} {trt.version}")
        builder = trt.module.Builder(log.logger)
        if builder is None:
            raise BackendError(f"{trt.name} {trt.version} cannot start a builder: {last_error(log.errors)}")
        network = parse_graph(trt, builder, log, request.onnx)
        used = precision_of(network, request.precision, request.onnx.name)
        config, cache = configure(trt, builder, request)
        attentions = attention_layers(trt, network)
        plan = builder.build_serialized_network(network, config)
        if plan is None and attentions and NO_KERNEL in " ".join(log.errors).lower():
            # Some combinations of heads, lengths and types have no fused kernel, and the builder asks for leave.
            log.step(f"{request.name}: attention has no dedicated kernel in every case, and may be written out")
            log.errors.clear()
            for attention in attentions:
                attention.decomposable = True
            plan = builder.build_serialized_network(network, config)
            used = used.model_copy(update={"attention": "partly written out"})
        elif attentions:
            used = used.model_copy(update={"attention": "dedicated kernels"})
        if plan is None:
            raise BackendError(f"{trt.name} {trt.version} cannot build {request.onnx.name}: {explain(log.errors)}")
        request.plan.write_bytes(memoryview(plan))
        if request.timing_cache is not None and cache is not None:
            with staged_file(request.timing_cache) as staged:
                staged.write_bytes(bytes(cache.serialize()))
        if request.layers is not None:
            used = _report_layers(trt, log, request.plan, request.layers, used)
        return GraphResult(used=used)
    finally:
        log.close()


def parse_graph(trt: TensorRT, builder: Any, log: BuilderLog, onnx: Path) -> Any:
    """The file as a strongly typed network: each layer runs in the type that the graph gives it. Read by path, so that
    weights beside the file are found."""
    # TensorRT 10 must be told; 11 and TensorRT for RTX know no other networks, and let themselves be told.
    typed = getattr(trt.module.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(1 << int(typed) if typed is not None else 0)
    parser = trt.module.OnnxParser(network, log.logger)
    if not parser.parse_from_file(str(onnx)):
        errors = [parser.get_error(i) for i in range(parser.num_errors)]
        found = "; ".join(dict.fromkeys(_parser_error(error) for error in errors)) or last_error(log.errors)
        raise BackendError(f"{trt.name} {trt.version} cannot read {onnx.name}: {found}; export it for this version")
    return network


def attention_layers(trt: TensorRT, network: Any) -> list[Any]:
    """The network's operators `Attention`; older libraries have none."""
    found = []
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        if layer.type.name == "ATTENTION_OUTPUT":
            layer.__class__ = trt.module.IAttentionOutputLayer  # how these bindings cast a layer to its kind
            found.append(layer.attention)
    return found


def _parser_error(error: Any) -> str:
    where = f"{error.node_operator()} '{error.node_name()}'" if error.node_operator() else "the model"
    lines = error.desc().splitlines() or ["no reason given"]
    # The first line repeats the node's name; the reason stands below it.
    return f"{where}: {lines[1] if len(lines) > 1 and lines[0].startswith('Invalid Node') else lines[0]}"


def precision_of(network: Any, asked: str, file: str) -> PrecisionUsed:
    """Count the matrix products by type. In a strongly typed network they keep that type in the engine."""
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    dequantised = {layer.get_output(0).name for layer in layers if layer.type.name == "DEQUANTIZE"}
    counts: Counter[str] = Counter()
    for layer in layers:
        if layer.type.name in PRODUCTS:
            inputs = [layer.get_input(index) for index in range(layer.num_inputs)]
            quantised = any(tensor is not None and tensor.name in dequantised for tensor in inputs)
            kind = layer.get_output(0).dtype.name
            counts["int8" if quantised else TYPES.get(kind, kind.lower())] += 1
    if asked != "fp32" and counts and not counts[asked]:
        found = ", ".join(f"{count} in {kind}" for kind, count in counts.items()) or "none"
        raise BackendError(
            f"{asked} was asked for, and no matrix product of {file} is in {asked} (found: {found}); "
            f"TensorRT runs the types that the graph has: export it with --precision {asked}"
        )
    most = counts.most_common(1)
    return PrecisionUsed(precision=most[0][0] if most else "fp32", source="parsed network", counts=dict(counts))


def configure(trt: TensorRT, builder: Any, request: GraphRequest) -> tuple[Any, Any]:
    """The builder's configuration, and its timing cache where there is one."""
    module, config = trt.module, builder.create_builder_config()
    config.profiling_verbosity = module.ProfilingVerbosity.DETAILED
    # TF32 rounds what the graph wants in fp32, islands included.
    config.clear_flag(module.BuilderFlag.TF32)
    wanted = {"VERSION_COMPATIBLE": request.version_compatible, "REFIT": request.refit, "STRIP_PLAN": request.strip}
    for flag in (name for name, on in wanted.items() if on):
        config.set_flag(getattr(module.BuilderFlag, flag))
    if request.workspace is not None:
        config.set_memory_pool_limit(module.MemoryPoolType.WORKSPACE, request.workspace)
    if request.level is not None:
        config.builder_optimization_level = request.level
    if request.hardware != "none":
        names = {"ampere+": "AMPERE_PLUS", "same-capability": "SAME_COMPUTE_CAPABILITY"}
        config.hardware_compatibility_level = getattr(module.HardwareCompatibilityLevel, names[request.hardware])
    if request.capabilities:
        config.num_compute_capabilities = len(request.capabilities)
        for index, sm in enumerate(request.capabilities):
            if not config.set_compute_capability(getattr(module.ComputeCapability, f"SM{sm}"), index):
                raise BackendError(f"{trt.name} {trt.version} refuses capability SM{sm}; leave it out of --sm")
    for shapes in request.profiles:
        add_profile(builder, config, shapes)
    return config, attach_timing_cache(config, request.timing_cache) if request.timing_cache else None


def add_profile(builder: Any, config: Any, shapes: Shapes) -> None:
    profile = builder.create_optimization_profile()
    for name, (smallest, best, largest) in shapes.items():
        profile.set_shape(name, smallest, best, largest)
    if config.add_optimization_profile(profile) < 0:
        raise BackendError(f"the builder refuses the profile {shapes}; give ranges that the graph allows")


def attach_timing_cache(config: Any, path: Path) -> Any:
    """A cache of another GPU or version is not used: it would choose kernels by another device's times."""
    cache = config.create_timing_cache(path.read_bytes() if path.is_file() else b"")
    if not config.set_timing_cache(cache, ignore_mismatch=False):
        raise BackendError(f"{path} is the timing cache of another GPU or TensorRT; give another --timing-cache")
    return cache


def explain(errors: list[str]) -> str:
    """A builder's errors as one sentence: what they usually mean, and what mends it."""
    text = " ".join(errors).lower()
    if NO_KERNEL in text:
        return "Attention in this type has no kernel on these GPUs; export with --opset 20, which writes attention out"
    if means_out_of_memory(errors):
        return (
            f"memory ran out while it built ({last_error(errors)}); close other programs, or narrow it: "
            "--batch 1:4:8, --workspace 512M"
        )
    # TensorRT for RTX 1.7 says the second of a refittable engine, whose kernels it compiles for the GPU that is there.
    if "cuda" in text or "sm_vers_" in text:
        return f"these settings need an NVIDIA GPU and its driver on this machine ({last_error(errors)})"
    return f"{last_error(errors)}; the whole log is in build.log"


def _report_layers(trt: TensorRT, log: BuilderLog, plan: Path, path: Path, used: PrecisionUsed) -> PrecisionUsed:
    """Keep the engine's own report of its layers; where it shows the asked type, it is the better witness."""
    engine = trt.module.Runtime(log.logger).deserialize_cuda_engine(plan.read_bytes())
    if engine is None:
        raise BackendError(
            f"{trt.name} {trt.version} cannot load the plan that it has just built: {last_error(log.errors)}"
        )
    inspector = engine.create_engine_inspector()
    report = inspector.get_engine_information(trt.module.LayerInformationFormat.JSON)
    path.write_text(report, encoding="utf-8")
    shown = any(word in report.lower() for word in REPORTED.get(used.precision, ()))
    return used.model_copy(update={"source": "engine layers"}) if shown else used


def main(request: str, result: str) -> int:
    try:
        done = build_graph(GraphRequest.model_validate_json(Path(request).read_text(encoding="utf-8")))
    except VtrError as error:
        done = GraphResult(error=str(error))
    except MemoryError:
        done = GraphResult(error="the host's memory ran out while the graph was built; close other programs")
    Path(result).write_text(done.model_dump_json(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
