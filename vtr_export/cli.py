"""`vtr-export`: one command, from a checkpoint to a bundle."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vtr_runtime.console import SingleCli, echo_json, json_option, note, table
from vtr_runtime.engines.options import engine_options
from vtr_runtime.precision import PRECISIONS
from vtr_runtime.targets import OPSETS, TARGETS

from .plan import ExportPlan

if TYPE_CHECKING:
    from .exporter import ExportResult
    from .graphs import BuiltGraph

# Where the gates judge each graph.
STAGE_OF = {"video": "video_embedding", "text": "aligned", "rerank": "rerank"}


@click.command(cls=SingleCli, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="vtr-export")
@click.option("--ckpt", type=click.Path(path_type=Path), help="best.pt of vtr-train fit, or a CLIP4Clip checkpoint.")
@click.option("--open-clip", metavar="NAME", help="Stock CLIP instead of a checkpoint, such as ViT-B-32-quickgelu.")
@click.option("--pretrained", metavar="TAG_OR_FILE", help="Weights for --open-clip: a tag of open_clip's, or a file.")
@click.option("--frames", default=12, show_default=True, type=click.IntRange(1), help="T where the file has none.")
@click.option(
    "--sampling",
    default="uniform",
    show_default=True,
    type=click.Choice(["uniform", "fps1"]),
    help="Which frames, where the file does not say; fps1: CLIP4Clip's one a second.",
)
@click.option(
    "--target",
    "targets",
    multiple=True,
    default=("onnx",),
    show_default=True,
    help=f"{', '.join(TARGETS)}; repeatable.",
)
@click.option("--precision", type=click.Choice(PRECISIONS), help="[default: fp16 for trt and trt-rtx, fp32 elsewhere]")
@click.option("--opset", type=int, help=f"{', '.join(map(str, OPSETS))}. [default: by target]")
@click.option("--rerank", is_flag=True, help="Export the second stage too, and what it needs of the towers.")
@click.option("--split-video", is_flag=True, help="Also the video tower in two graphs, for hosts that keep features.")
@click.option("--islands", type=click.Path(path_type=Path), help="List of modules to keep in fp32 (fp16, bf16).")
@click.option("--search-islands", is_flag=True, help="Find that list by embeddings and ranks.")
@click.option("--calibration", metavar="SPEC", help="Data set that int8 or the search reads. [default: golden clips]")
@click.option("--eval-data", metavar="SPEC", help="Data set whose test ranking must be PyTorch's before publishing.")
@click.option("--debug-outputs", is_flag=True, help="Graphs give their inner stages too, for finding a fault.")
@engine_options
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Bundle folder to write.")
@click.option("--overwrite", is_flag=True, help="Replace the bundle once the new one is finished.")
@click.option("--dry-run", is_flag=True, help="Check the options and print the plan.")
@json_option
def main(ckpt: Path | None, output: Path, dry_run: bool, as_json: bool, **options: Any) -> int:
    """Export a trained text-video retrieval model to a self-contained bundle.

    \b
    vtr-export --ckpt best.pt --target onnx -o bundle/
    vtr-export --ckpt best.pt --target trt-rtx --precision fp16 --eval-data DIR -o bundle/
    vtr-export --ckpt best.pt --target openvino --precision bf16 -o bundle/
    vtr-export --open-clip ViT-B-32-quickgelu --pretrained openai -o bundle/

    Ends with 1 where a target could not be made on this machine (the rest is published), 3 where a gate is not met."""
    plan_options = {name: options.pop(name) for name in list(options) if name in ExportPlan.__dataclass_fields__}
    plan = ExportPlan(output=output, checkpoint=ckpt, engine=options, **plan_options)
    plan.check()
    if dry_run:
        _print_plan(plan, as_json)
        return 0
    from .exporter import export

    result = export(plan, say=note)
    for line in result.undone:
        note(f"not done: {line}")
    _print_result(result, as_json)
    return 1 if result.undone else 0


def _print_plan(plan: ExportPlan, as_json: bool) -> None:
    if as_json:
        echo_json(plan.settings)
        return
    rows = [(key, ", ".join(value) if isinstance(value, list) else value) for key, value in plan.settings.items()]
    rows += [(name, f"{TARGETS[name].makes}; runs on {TARGETS[name].runs_on}") for name in plan.targets]
    table(f"plan for {plan.output}", ("", ""), rows)


def _print_result(result: ExportResult, as_json: bool) -> None:
    if as_json:
        echo_json(_as_json(result))
        return
    manifest, gates = result.manifest, result.gates
    columns = (
        "graph",
        "MB",
        "types",
        "nodes",
        "fp32 graph, max difference",
        "bundle, at the gates",
        "fused / expected",
    )
    rows = [
        (
            graph.spec.file,
            f"{graph.megabytes:.1f}",
            manifest.graph_precision if graph.lowered else "fp32",
            graph.nodes,
            f"{graph.difference:.2g}",
            gates.worst(STAGE_OF[graph.name]) if graph.name in STAGE_OF else (*graph.notes, "as in fp32")[-1],
            graph.fusion.summary,
        )
        for graph in result.graphs
    ]
    table(f"{result.output} in {result.seconds:.0f} s, {manifest.precision}, opset {manifest.opset}", columns, rows)
    if result.engines:
        engines = [(e.target, f"{e.megabytes:.1f}", e.summary) for e in result.engines]
        table("beside the graphs", ("target", "MB", ""), engines)
    if retrieval := gates.retrieval():
        click.echo(f"retrieval: {retrieval}")
    click.echo(f"gates: {gates.verdict}")
    click.echo(f"next: vtr-runtime embed {result.output} VIDEOS... -o videos.parquet")


def _as_json(result: ExportResult) -> dict[str, Any]:
    return {
        "output": str(result.output),
        "space": result.manifest.space,
        "variant": result.manifest.variant,
        "precision": result.manifest.precision,
        "opset": result.manifest.opset,
        "graphs": [_graph_json(graph) for graph in result.graphs],
        "engines": [{"target": e.target, "summary": e.summary, "undone": e.undone} for e in result.engines],
        "gates": result.gates.verdict,
        "retrieval": list(result.gates.splits),
    }


def _graph_json(graph: BuiltGraph) -> dict[str, Any]:
    return {
        "name": graph.name,
        "file": graph.spec.file,
        "megabytes": graph.megabytes,
        "nodes": graph.nodes,
        "difference": graph.difference,
        "fused": graph.fusion.found,
        "expected": graph.fusion.expected,
    }


if __name__ == "__main__":
    sys.exit(main())
