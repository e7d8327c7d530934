"""What to run on the device, where this machine has no TensorRT or no GPU: written beside the graphs it builds."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

from ..bundle import Bundle
from ..publish import staged_folder
from .profiles import graph_profiles, input_shapes
from .record import Shapes, core_hash
from .tensorrt_build import BuildOptions
from .tensorrt_library import MAJORS, TensorRTTarget

RECIPE_SCHEMA = 1
PROGRAM = {"trt": "trtexec", "trt-rtx": "tensorrt_rtx"}


def write_recipe(
    bundle: Bundle,
    target: TensorRTTarget,
    options: BuildOptions,
    *,
    engine_dir: Path,
    reason: str,
    overwrite: bool = False,
) -> Path:
    """Write `<target>-recipe/` with recipe.json and README.md into `engine_dir`; gives the folder.

    It holds no engine.json, so nothing ever loads it as an engine. `reason` says why no engine was built."""
    folder = engine_dir / f"{target}-recipe"
    lines = command_lines(bundle, target, options)
    build = build_command(target, options)
    recipe = {
        "schema": RECIPE_SCHEMA,
        "target": target,
        "core": core_hash(bundle.manifest),
        "precision": bundle.manifest.precision,
        "opset": bundle.manifest.opset,
        "reason": reason,
        "build": build,
        "commands": lines,
    }
    engine_dir.mkdir(parents=True, exist_ok=True)
    with staged_folder(folder, overwrite=overwrite) as staged:
        (staged / "recipe.json").write_text(json.dumps(recipe, indent=1) + "\n", encoding="utf-8")
        (staged / "README.md").write_text(_readme(bundle, target, reason, build, lines), encoding="utf-8")
    return folder


def build_command(target: TensorRTTarget, options: BuildOptions) -> str:
    """The line that builds the engines on the device, with the same options."""
    words = ["vtr-runtime", "build", "BUNDLE", "--target", target, "--batch", str(options.profiles.batch)]
    if target == "trt-rtx" and options.capabilities:
        words += ["--sm", ",".join(options.capabilities)]
    words += ["--text-batch", str(options.profiles.text_batch), "--candidates", str(options.profiles.candidates)]
    if options.workspace is not None:
        words += ["--workspace", f"{options.workspace >> 20}M"]
    if options.timing_cache is not None:
        words += ["--timing-cache", options.timing_cache.name]
    if options.level is not None:
        words += ["--optimization-level", str(options.level)]
    words += ["--version-compatible"] if options.version_compatible else []
    words += ["--refittable"] if options.refit else []
    words += ["--strip"] if options.strip else []
    if options.hardware != "none":
        words += ["--hardware-compatible", options.hardware]
    return shlex.join(words)


def command_lines(bundle: Bundle, target: TensorRTTarget, options: BuildOptions) -> dict[str, str]:
    """By graph: the line for NVIDIA's own program, to be run in the bundle's folder."""
    profiles = graph_profiles(bundle.manifest, options.profiles)
    return {
        name: shlex.join(
            [
                PROGRAM[target],
                f"--onnx={graph.file}",
                f"--saveEngine={name}.plan",
                *_typing(target, options),
                *_shape_words([input_shapes(graph, profile) for profile in profiles[name]]),
                "--profilingVerbosity=detailed",
                "--skipInference",
            ]
        )
        for name, graph in bundle.manifest.graphs.named().items()
    }


def _typing(target: TensorRTTarget, options: BuildOptions) -> list[str]:
    if target == "trt-rtx":  # always strongly typed, and without a timing cache
        return []
    # TensorRT 11 is always strongly typed and takes the word; 10 needs it.
    words = ["--stronglyTyped", "--noTF32", f"--timingCacheFile={options.timing_cache or 'timing.cache'}"]
    if options.workspace is not None:
        words.append(f"--memPoolSize=workspace:{options.workspace >> 20}")
    words += ["--versionCompatible"] if options.version_compatible else []
    words += ["--refit"] if options.refit else []
    words += ["--stripWeights"] if options.strip else []
    levels = {"ampere+": "ampere+", "same-capability": "sameComputeCapability"}
    return words + ([f"--hardwareCompatibilityLevel={levels[options.hardware]}"] if options.hardware != "none" else [])


def _shape_words(profiles: list[Shapes]) -> list[str]:
    words = []
    for index, shapes in enumerate(profiles):
        words += [f"--profile={index}"] if len(profiles) > 1 else []
        for corner, name in enumerate(("minShapes", "optShapes", "maxShapes")):
            sizes = ",".join(f"{key}:{'x'.join(map(str, shape[corner]))}" for key, shape in shapes.items())
            words.append(f"--{name}={sizes}")
    return words


def _readme(bundle: Bundle, target: TensorRTTarget, reason: str, build: str, lines: dict[str, str]) -> str:
    majors = " or ".join(str(major) for major in MAJORS[target])
    commands = "\n\n".join(lines.values())
    return f"""# Engines to be built on the device

No engine was built here: {reason}.

The graphs are typed ({bundle.manifest.graph_precision}, opset {bundle.manifest.opset}); TensorRT runs the types that
they have. On the machine that will run them, with {PROGRAM[target]}'s library of version {majors}, where BUNDLE is
this bundle's folder:

    pip install 'vtr-runtime[{target}]'
    {build}

This writes engines and engine.json, which vtr-runtime checks before it loads them. NVIDIA's own program builds the same
plans for other hosts, in the bundle's folder:

{_indent(commands)}
"""


def _indent(text: str) -> str:
    return "\n".join(f"    {line}" if line else "" for line in text.splitlines())
