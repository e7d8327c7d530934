"""ONNX Runtime's providers for NVIDIA GPUs: their names and options. Pure: read and tested anywhere.

Every option that stands here has its reason; all others keep the provider's default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..engines.device import DeviceInfo
from ..engines.profiles import Profile, graph_profiles, input_shapes
from ..engines.record import core_hash
from ..manifest import GraphSpec, Manifest
from .base import BackendOptions
from .shapes import ROW_AXES, Buckets, powers_of_two

ProviderBackend = Literal["onnx-cuda", "onnx-tensorrt", "onnx-trt-rtx"]


@dataclass(frozen=True)
class Provider:
    """`extra` is the pip extra that brings it; `graph_id` the run option that names a captured graph."""

    name: str
    extra: str
    graph_id: str


PROVIDERS: dict[ProviderBackend, Provider] = {
    "onnx-cuda": Provider("CUDAExecutionProvider", "gpu", "gpu_graph_id"),
    "onnx-tensorrt": Provider("TensorrtExecutionProvider", "gpu", "gpu_graph_id"),
    "onnx-trt-rtx": Provider("NvTensorRTRTXExecutionProvider", "onnx-trt-rtx", "cuda_graph_annotation_id"),
}


def provider_options(
    backend: ProviderBackend, name: str, manifest: Manifest, options: BackendOptions, cache: Path
) -> dict[str, str]:
    """The options of a provider for the graph `name`; `cache` is a folder for what the provider builds."""
    if backend == "onnx-cuda":
        return _cuda(options)
    shapes = _profile_shapes("trt" if backend == "onnx-tensorrt" else "nv", name, manifest)
    return (_tensorrt if backend == "onnx-tensorrt" else _rtx)(manifest, options, cache) | shapes


def _cuda(options: BackendOptions) -> dict[str, str]:
    chosen = {
        "device_id": str(options.device),
        # By powers of two the arena takes up to twice what is used, and keeps it.
        "arena_extend_strategy": "kSameAsRequested",
        # Exhaustive, the default, times every convolution anew for every shape.
        "cudnn_conv_algo_search": "HEURISTIC",
        # fp32 is to be fp32: TF32 keeps 10 bits of 23.
        "use_tf32": "0",
        "enable_cuda_graph": str(int(options.cuda_graphs)),
    }
    return chosen | ({} if options.memory_limit is None else {"gpu_mem_limit": str(options.memory_limit)})


def _tensorrt(manifest: Manifest, options: BackendOptions, cache: Path) -> dict[str, str]:
    """With TensorRT 10 this provider builds weakly typed networks: a type is used only where it is allowed."""
    kinds = {"fp16": "trt_fp16_enable", "bf16": "trt_bf16_enable", "int8": "trt_int8_enable"}
    allowed = {key: str(int(manifest.graph_precision == kind)) for kind, key in kinds.items()}
    return allowed | {
        "device_id": str(options.device),
        # LayerNorm overflows in fp16 (docs/precision.md).
        "trt_layer_norm_fp32_fallback": "1",
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(cache),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(cache),
        "trt_cuda_graph_enable": str(int(options.cuda_graphs)),
    }


def _rtx(manifest: Manifest, options: BackendOptions, cache: Path) -> dict[str, str]:  # noqa: ARG001
    """Strongly typed: the graph's types are the engine's. The plug-in is told its device by `get_ep_devices`."""
    return {
        "nv_runtime_cache_path": str(cache),
        "enable_cuda_graph": str(int(options.cuda_graphs)),
        # Without it memory for a shape is taken and given back in every run.
        "nv_persistent_context_memory": "1",
    }


def _profile_shapes(prefix: str, name: str, manifest: Manifest) -> dict[str, str]:
    """The one profile that holds all shapes: without it an engine is built anew for each shape that comes by."""
    spec = manifest.graphs.named()[name]
    profile = widest_profile(name, manifest)
    shapes = input_shapes(spec, profile)
    return {
        f"{prefix}_profile_{corner}_shapes": ",".join(
            f"{given}:{'x'.join(map(str, shape[place]))}" for given, shape in shapes.items()
        )
        for place, corner in enumerate(("min", "opt", "max"))
    }


def widest_profile(name: str, manifest: Manifest) -> Profile:
    """Of the profiles that an engine of the graph would have: the one for many rows."""
    return graph_profiles(manifest)[name][-1]


def provider_buckets(name: str, manifest: Manifest) -> Buckets:
    """Powers of two of rows, and 16, 32, 48 ... tokens: few enough to capture a CUDA graph of each, and a sentence is
    filled up by less than 16 tokens."""
    profile = widest_profile(name, manifest)
    longest = manifest.text.context_length
    rows = next((powers_of_two(sizes.max) for axis, sizes in profile.items() if axis in ROW_AXES), ())
    return Buckets(rows, (*range(16, longest, 16), longest))


def largest_axes(spec: GraphSpec, buckets: Buckets) -> dict[str, int]:
    """The sizes that buffers are made for."""
    axes = {size for tensor in spec.inputs for size in tensor.shape if isinstance(size, str)}
    return {axis: buckets.rows[-1] if axis in ROW_AXES else buckets.tokens[-1] for axis in axes}


def cache_folder(engine_dir: Path, backend: ProviderBackend, manifest: Manifest, device: DeviceInfo) -> Path:
    """What a provider builds belongs to these graphs and this kind of GPU."""
    return engine_dir / f".{backend}-{core_hash(manifest)[:16]}-sm{device.sm}"


def tf32_note(backend: ProviderBackend, manifest: Manifest, environ: Mapping[str, str]) -> str | None:
    """Why fp32 is not proved, or None: TensorRT's providers have no switch for TF32, the library has a variable."""
    if backend == "onnx-cuda" or manifest.graph_precision != "fp32" or environ.get("NVIDIA_TF32_OVERRIDE") == "0":
        return None
    return (
        f"{PROVIDERS[backend].name} computes fp32 products in TF32 where it likes: no proof of fp32; "
        "set NVIDIA_TF32_OVERRIDE=0 before Python starts"
    )
