"""vtr-train: generated data, training, evaluation."""

from __future__ import annotations

from pathlib import Path

import click

from vtr_runtime.console import Cli, echo_json, json_option, table

FOLDER = click.Path(path_type=Path)


@click.group(cls=Cli)
@click.version_option(package_name="vtr-export")
def main() -> None:
    """Train text-video retrieval models, and measure how well they retrieve.

    \b
    vtr-train demo-data out/demo/data
    vtr-train fit training/recipes/demo-mstdt-dits.toml -o out/demo/run
    vtr-train evaluate out/demo/run/best.pt --data out/demo/data
    """


@main.command("demo-data")
@click.argument("folder", type=FOLDER, metavar="DIR")
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="The same seed gives the same bytes."
)
@click.option(
    "--clips", type=click.IntRange(min=4), default=3200, show_default=True, help="Training clips; a multiple of 4."
)
@click.option("--overwrite", is_flag=True, help="Replace DIR once the new one is complete.")
@json_option
def demo_data(folder: Path, seed: int, clips: int, overwrite: bool, as_json: bool) -> None:
    """Write a generated data set of real mp4 files whose motion no single frame gives away."""
    from .demo.plan import DemoSize
    from .demo.write import write_demo_data

    written = write_demo_data(folder, size=DemoSize(train_clips=clips), seed=seed, overwrite=overwrite)
    if as_json:
        echo_json({"folder": str(written.folder), "clips": written.clips, "bytes": written.bytes})
    else:
        table(f"{folder}, {written.bytes / 1e6:.0f} MB", ["split", "clips"], written.clips.items())
        click.echo(f"next: vtr-train fit training/recipes/demo-mstdt-dits.toml --set data.spec={folder} -o RUN")


@main.command()
@click.argument("config", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change one key, for instance optim.lr=1e-4."
)
@click.option("--resume", is_flag=True, help="Go on with the interrupted run in RUN.")
@click.option("-o", "--output", "run", type=FOLDER, required=True, metavar="RUN", help="Folder of the run.")
@json_option
def fit(config: Path, overrides: tuple[str, ...], resume: bool, run: Path, as_json: bool) -> None:
    """Train by a recipe. RUN gets best.pt, last.pt, recipe.json, log.jsonl and tb/ (tensorboard --logdir RUN/tb)."""
    from .recipe import read_recipe

    recipe = read_recipe(config, overrides)
    from .loop import fit as train

    result = train(recipe, run, resume=resume)
    if as_json:
        echo_json(result.to_json())
        return
    rows = {
        "best.pt": f"step {result.best_step}, validation {result.metric} {result.best_value:.3f}",
        "steps": f"{result.steps}, {result.seconds_per_step:.3f} s each",
        "clips skipped": result.skipped,
    }
    table(str(run), ["made", ""], rows.items())
    click.echo(f"next: vtr-train evaluate {result.best} --data {recipe.data.spec}")


@main.command()
@click.argument("model", type=click.Path(path_type=Path, exists=True), metavar="CKPT_OR_BUNDLE")
@click.option("--data", required=True, metavar="SPEC", help="A .jsonl file, or a folder with data.jsonl.")
@click.option("--split", type=click.Choice(["train", "val", "test"]), default="test", show_default=True)
@json_option
def evaluate(model: Path, data: str, split: str, as_json: bool) -> None:
    """Measure retrieval on a split: recalls and ranks both ways, and within groups where the data has them."""
    from .report import evaluate_model, print_report

    result = evaluate_model(model, data, split)
    if as_json:
        echo_json(result.to_json())
    else:
        print_report(result)
