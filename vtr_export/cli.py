"""`vtr-export`: one command, from a checkpoint to a bundle."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from vtr_runtime.console import SingleCli, echo_json, json_option, note, table

from .plan import ExportPlan


@click.command(cls=SingleCli, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="vtr-export")
@click.option("--ckpt", type=click.Path(path_type=Path), help="Checkpoint that vtr-train fit wrote (best.pt).")
@click.option("--open-clip", metavar="NAME", help="Stock CLIP instead of a checkpoint, such as ViT-B-32-quickgelu.")
@click.option("--pretrained", metavar="TAG_OR_FILE", help="Weights for --open-clip: a tag of open_clip's, or a file.")
@click.option(
    "--target", "targets", multiple=True, default=("onnx",), show_default=True, help="What to make; repeatable."
)
@click.option("--eval-data", metavar="SPEC", help="Data set whose test ranking must equal PyTorch's before publishing.")
@click.option("--debug-outputs", is_flag=True, help="Graphs give their inner stages too, for finding a fault.")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Bundle folder to write.")
@click.option("--overwrite", is_flag=True, help="Replace the bundle once the new one is finished.")
@click.option("--dry-run", is_flag=True, help="Check the options and print the plan.")
@json_option
def main(
    ckpt: Path | None,
    open_clip: str | None,
    pretrained: str | None,
    targets: tuple[str, ...],
    eval_data: str | None,
    debug_outputs: bool,
    output: Path,
    overwrite: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Export a trained text-video retrieval model to a self-contained bundle.

    \b
    vtr-export --ckpt best.pt --target onnx -o bundle/
    vtr-export --open-clip ViT-B-32-quickgelu --pretrained openai --target onnx -o bundle/
    """
    plan = ExportPlan(
        output=output,
        checkpoint=ckpt,
        open_clip=open_clip,
        pretrained=pretrained,
        targets=targets,
        eval_data=eval_data,
        debug_outputs=debug_outputs,
        overwrite=overwrite,
    )
    plan.check()
    if dry_run:
        settings = [
            (key, ", ".join(value) if isinstance(value, list) else value) for key, value in plan.settings.items()
        ]
        if as_json:
            echo_json(plan.settings)
        else:
            table(f"plan for {output}", ("", ""), settings)
        return
    from .exporter import export

    result = export(plan, say=note)
    if as_json:
        graphs = [vars(graph) for graph in result.graphs]
        echo_json({"output": str(output), "space": result.manifest.space, "graphs": graphs, "gates": result.verdict})
        return
    rows = [(g.file, f"{g.megabytes:.1f}", "fp32", g.nodes, f"{g.difference:.2g}") for g in result.graphs]
    table(f"{output} in {result.seconds:.0f} s", ("graph", "MB", "precision", "nodes", "max difference"), rows)
    click.echo(f"gates: {result.verdict}")
    click.echo(f"next: vtr-runtime embed {output} VIDEOS... -o videos.parquet")


if __name__ == "__main__":
    sys.exit(main())
