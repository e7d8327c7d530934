"""What stands beside a bundle's graphs: engines, a Triton repository, or the recipe to build them on the device."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from vtr_runtime.bundle import open_bundle
from vtr_runtime.engines.record import ENGINES, EngineRecord
from vtr_runtime.errors import BackendError

from .graph.fusion import find_in_openvino
from .graphs import BuiltGraph
from .plan import ExportPlan

if TYPE_CHECKING:
    from vtr_runtime.engines.tensorrt_library import TensorRTTarget

Say = Callable[[str], None]


@dataclass(frozen=True)
class MadeEngine:
    """`undone` says why the target could not be made here, and what lies in its place; empty where it was made."""

    target: str
    folder: Path  # inside the bundle
    summary: str
    megabytes: float
    undone: str = ""


def make_engine(target: str, folder: Path, plan: ExportPlan, graphs: Sequence[BuiltGraph], say: Say) -> MadeEngine:
    """Make what a target has beside the graphs, in the unpublished bundle `folder`.

    An absent library or device is no failure of the export: the graphs stay, and a recipe for the device joins them. It
    is one, a BackendError, where the precision is a hint to this engine alone.
    GateError where OpenVINO took an operator apart that it should run as one."""
    if target == "triton":
        return _triton(folder, plan)
    if target == "openvino":
        return _openvino(folder, plan, graphs, say)
    return _tensorrt(cast("TensorRTTarget", target), folder, plan, say)


def _openvino(folder: Path, plan: ExportPlan, graphs: Sequence[BuiltGraph], say: Say) -> MadeEngine:
    from vtr_runtime.engines.openvino_build import build_openvino

    try:
        record = build_openvino(open_bundle(folder), engine_dir=folder / ENGINES, say=say)
    except BackendError as error:
        if plan.graphs.precision != plan.graphs.graph_precision:
            raise  # the precision is nowhere but in this engine: without it there is nothing to publish
        return MadeEngine("openvino", folder, "openvino: not built", 0.0, undone=f"target openvino: {error}")
    layers = cast(Mapping[str, dict[str, int]], record.settings["layers"])
    for graph in graphs:
        found = find_in_openvino(f"OpenVINO's {graph.name}", layers[graph.name], graph.fusion.expected)
        found.check()
        say(f"{found.where}: {found.summary or 'nothing to fuse'}")
    return _made(record, folder)


def _tensorrt(target: TensorRTTarget, folder: Path, plan: ExportPlan, say: Say) -> MadeEngine:
    from vtr_runtime.engines.recipe import write_recipe
    from vtr_runtime.engines.tensorrt_build import build_tensorrt

    bundle, options, engine_dir = open_bundle(folder), plan.build_options, folder / ENGINES
    try:
        return _made(build_tensorrt(bundle, target, options, engine_dir=engine_dir, say=say), folder)
    except BackendError as error:
        recipe = write_recipe(bundle, target, options, engine_dir=engine_dir, reason=str(error))
        where = recipe.relative_to(folder)
        undone = f"target {target}: {error}; the typed graphs and {where}/README.md, what to run there, are published"
        return MadeEngine(target, recipe, f"{target}: to be built on the device ({where})", 0.0, undone=undone)


def _triton(folder: Path, plan: ExportPlan) -> MadeEngine:
    from .triton import write_repository

    profiles = plan.build_options.profiles
    video, text = ((r.min, r.opt, r.max) for r in (profiles.batch, profiles.text_batch))
    output = folder / ENGINES / "triton"
    files = write_repository(folder, output, video_batch=video, text_batch=text)
    size = sum(file.stat().st_size for file in files) / 1e6
    return MadeEngine("triton", output, f"triton: model repository, {len(files)} files (engines/triton)", size)


def _made(record: EngineRecord, folder: Path) -> MadeEngine:
    used = "; ".join(
        f"{name} {found.precision}"
        + (f" ({_counts(found.counts)})" if found.counts else "")
        + (f", attention: {found.attention}" if found.attention else "")
        for name, found in record.precision_used.items()
    )
    size = sum(entry.size for entry in record.files.values()) / 1e6
    summary = f"{record.id}: {record.library} {record.library_version}, products in {used}"
    return MadeEngine(record.target, folder / ENGINES / record.id, summary, size)


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in counts.items())
