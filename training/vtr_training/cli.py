"""vtr-train: generated data, training, evaluation."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vtr_runtime.console import Cli, echo_json, json_option, note, table
from vtr_runtime.errors import ConfigError, UsageError, VtrError

if TYPE_CHECKING:
    from vtr_runtime.manifest import FrameSpec
    from vtr_runtime.sampling import Sampling

    from .data.stored import Format
    from .report import Post

FOLDER = click.Path(path_type=Path)


@click.group(cls=Cli)
@click.version_option(package_name="vtr-export")
def main() -> None:
    """Train text-video retrieval models, and measure how well they retrieve.

    \b
    vtr-train demo-data out/demo/data
    vtr-train check training/recipes/demo-mstdt-dits.toml
    vtr-train prepare out/demo/data --recipe training/recipes/demo-mstdt-dits.toml -o out/demo/shards
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


def _sample(_: click.Context, __: click.Parameter, value: str) -> int | None:
    """A number of clips; None for all."""
    if value != "all" and not value.isdecimal():
        raise click.BadParameter(f"{value!r} is neither a number nor all")
    return None if value == "all" else int(value)


@main.command()
@click.argument("config", metavar="RECIPE", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--data", metavar="DIR_OR_SPEC", help="Where the recipe's data lie, or a SPEC in place of its own.")
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change one key, for instance optim.lr=1e-4."
)
@click.option(
    "--decode",
    callback=_sample,
    metavar="N|all",
    default="24",
    show_default=True,
    help="Clips of each split to decode.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    help="That decoding a clip may take. [default: the recipe's data.decode_seconds]",
)
@click.option("--cost/--no-cost", default=True, show_default=True, help="Run a few steps to say what a run will take.")
@json_option
def check(
    config: Path,
    data: str | None,
    overrides: tuple[str, ...],
    decode: int | None,
    seconds: float | None,
    cost: bool,
    as_json: bool,
) -> None:
    """Say what is missing before anything is trained: files, clips, captions, time and memory.

    Ends with 1 where something is missing that the recipe or the benchmark's protocol asks for."""
    from .data.spec import replace_place
    from .recipe import read_recipe

    recipe = read_recipe(config, overrides)
    if data is not None:
        spec = replace_place(recipe.data.spec, data)
        recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"spec": spec})})
    from .check.run import check_recipe
    from .check.show import print_report

    limit = seconds or recipe.data.decode_seconds
    found = check_recipe(recipe, sample=decode, seconds=limit, cost=cost)
    if as_json:
        echo_json(found.to_json())
    else:
        print_report(found)
    if found.problems:
        raise VtrError(f"{len(found.problems)} problem(s) of {recipe.data.spec}, see above; mend them, and check again")
    if not as_json:
        place = shlex.quote(f"data.spec={recipe.data.spec}")
        click.echo(f"next: vtr-train fit {config} --set {place} -o RUN")


@main.command()
@click.argument("spec", metavar="SPEC")
@click.option("-o", "--output", "folder", type=FOLDER, required=True, metavar="DIR", help="Folder of the shards.")
@click.option(
    "--recipe",
    "config",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Frames as the model of this recipe takes them, in place of the next three.",
)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change one key of the recipe.")
@click.option("--frames", type=click.IntRange(min=1), metavar="T", help="Frames per clip. [default: 12]")
@click.option("--size", type=click.IntRange(min=16), metavar="S", help="Side of a frame in pixels. [default: 224]")
@click.option("--sampling", type=click.Choice(["uniform", "fps1"]), help="Which T frames. [default: uniform]")
@click.option("--split", "splits", multiple=True, type=click.Choice(["train", "val", "test"]), help="Default: all.")
@click.option(
    "--format",
    "format_",
    type=click.Choice(["npy", "jpeg"]),
    default="npy",
    show_default=True,
    help="npy: exact, 1.8 MB a clip of 12 frames; jpeg: about a tenth of that, with losses.",
)
@click.option("--shard-clips", type=click.IntRange(min=1), default=256, show_default=True, help="Clips of a shard.")
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=300,
    show_default=True,
    help="That decoding a clip may take.",
)
@json_option
def prepare(
    spec: str,
    folder: Path,
    config: Path | None,
    overrides: tuple[str, ...],
    frames: int | None,
    size: int | None,
    sampling: Sampling | None,
    splits: tuple[str, ...],
    format_: Format,
    shard_clips: int,
    seconds: float,
    as_json: bool,
) -> None:
    """Sample the frames of every clip once, into WebDataset shards that fit, evaluate and check read in place of the
    videos. A run that was killed goes on when the same command is given again.

    Ends with 1 if a clip could not be read, unless the SPEC says subset=yes; it is listed in DIR/index.json, and the
    others are there all the same."""
    from .data.frame_cache import tell_skipped
    from .data.prepare import PrepareOptions
    from .data.prepare import prepare as write_shards

    contract = _frame_spec(config, overrides, frames, size, sampling)
    wanted = PrepareOptions(contract, format_, splits, shard_clips, seconds)
    index = write_shards(spec, folder, wanted)
    unreadable = [one for split in index.splits.values() for one in split.unreadable]
    if as_json:
        echo_json({"folder": str(folder), **index.model_dump(mode="json", by_alias=True)})
    else:
        rows = [
            [name, split.clips, split.readable, split.captions, len(split.shards), f"{split.bytes / 2**20:,.1f} MiB"]
            for name, split in index.splits.items()
        ]
        table(str(folder), ["split", "clips", "readable", "captions", "shards", "size"], rows)
    tell_skipped([one.error for one in unreadable])
    if not as_json:
        place = shlex.quote(f"data.spec=prepared:{folder}")
        click.echo(f"next: vtr-train fit {config or 'RECIPE'} --set {place} -o RUN")
    if unreadable and not index.data.subset:
        click.get_current_context().exit(1)


def _frame_spec(
    config: Path | None, overrides: tuple[str, ...], frames: int | None, size: int | None, sampling: Sampling | None
) -> FrameSpec:
    """Of a recipe's model, or of the options. UsageError for both."""
    from vtr_runtime.manifest import FrameSpec

    given = {name: value for name, value in (("count", frames), ("size", size), ("sampling", sampling)) if value}
    if config is None:
        if overrides:
            raise UsageError("--set changes a recipe and none is given; add --recipe, or leave --set out")
        try:
            return FrameSpec.model_validate(given)
        except ValueError as error:
            said = str(error).splitlines()[2].strip()
            raise ConfigError(f"--frames, --size or --sampling: {said}; give another value") from error
    if given:
        raise UsageError("--recipe says which frames; leave --frames, --size and --sampling out, or leave --recipe out")
    from .model_config import model_config
    from .recipe import read_recipe

    return model_config(read_recipe(config, overrides).model).frames


@main.command()
@click.argument("config", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change one key, for instance optim.lr=1e-4."
)
@click.option("--resume", is_flag=True, help="Go on with the interrupted run in RUN.")
@click.option("--report/--no-report", default=True, show_default=True, help="Write RUN/report.html at the end.")
@click.option("-o", "--output", "run", type=FOLDER, required=True, metavar="RUN", help="Folder of the run.")
@json_option
def fit(config: Path, overrides: tuple[str, ...], resume: bool, report: bool, run: Path, as_json: bool) -> None:
    """Train by a recipe. RUN gets best.pt, last.pt, recipe.json, summary.json, log.jsonl, report.html and tb/
    (tensorboard --logdir RUN/tb).

    On several GPUs: torchrun --nproc-per-node 8 -m vtr_training fit RECIPE -o RUN"""
    from .recipe import read_recipe

    recipe = read_recipe(config, overrides)
    from .distributed import join_world, said_once
    from .loop import fit as train

    with join_world(recipe.device) as world, said_once(world):
        result = train(recipe, run, resume=resume, world=world)
    if not world.is_first:
        return
    if report:
        from .run_report.write import write_report

        write_report(run, overwrite=True)
    if as_json:
        echo_json(result.to_json())
        return
    rows = {
        "best.pt": f"step {result.best_step}, validation {result.metric} {result.best_value:.3f}",
        "steps": f"{result.steps}, {result.seconds_per_step:.3f} s each",
        "parameters": f"{result.parameters['total']:,}, of these and of the losses' own trained "
        f"{result.parameters['trained']:,}",
        "memory": f"{result.peak_memory_bytes / 2**30:.2f} GiB at most",
        "clips skipped": result.skipped,
    }
    table(str(run), ["made", ""], rows.items())
    second = "" if recipe.validation.top_k is None else f" --top-k {recipe.validation.top_k}"
    click.echo(f"next: vtr-train evaluate {run} --data {shlex.quote(recipe.data.spec)}{second}")


@main.command()
@click.argument("model", type=click.Path(path_type=Path, exists=True), metavar="CKPT_BUNDLE_OR_RUN")
@click.option("--data", required=True, metavar="SPEC", help="A data file, its folder, or a benchmark: msrvtt-1ka:DIR.")
@click.option("--split", type=click.Choice(["train", "val", "test"]), default="test", show_default=True)
@click.option(
    "--post",
    type=click.Choice(["none", "dsl", "qb-norm"]),
    default="none",
    show_default=True,
    help="Show the figures after a post-processing too, beneath the raw ones.",
)
@click.option("--top-k", type=click.IntRange(min=1), help="Reorder the first K by the checkpoint's second stage.")
@click.option("--per-query", type=FOLDER, metavar="FILE", help="Write every query's rank and best wrong answer.")
@click.option("--leak-check", is_flag=True, help="Verify that a pair's score depends on the pair alone.")
@json_option
def evaluate(
    model: Path,
    data: str,
    split: str,
    post: Post,
    top_k: int | None,
    per_query: Path | None,
    leak_check: bool,
    as_json: bool,
) -> None:
    """Measure retrieval on a split: recalls and ranks both ways, and within groups where the data has them.

    The folder of a run stands for its best.pt; the result is kept there too, as SPLIT.json. Where ties matter, figures
    with all of them won and all of them lost are added in brackets."""
    from .report import evaluate_model, print_report

    result = evaluate_model(model, data, split, post=post, top_k=top_k, per_query=per_query, leak_check=leak_check)
    if as_json:
        echo_json(result.to_json())
    else:
        print_report(result)
    if result.leak is not None and result.leak.found:
        raise VtrError(result.leak.sentence)


@main.command()
@click.argument("run", type=FOLDER, metavar="RUN")
@click.option("--data", metavar="SPEC", help="Other data than the run's own.")
@click.option("--split", type=click.Choice(["train", "val", "test"]), help="Default: what the run was validated on.")
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help="Default: RUN/report.html.")
@click.option("--overwrite", is_flag=True, help="Replace FILE once the new one is complete.")
@json_option
def report(run: Path, data: str | None, split: str | None, output: Path | None, overwrite: bool, as_json: bool) -> None:
    """Write one HTML page about a finished run: results, curves, modality gap, hard negatives, worst queries."""
    from .run_report.write import write_report

    made = write_report(run, data=data, split=split, output=output, overwrite=overwrite)
    if as_json:
        echo_json({"report": str(made.path), "bytes": made.bytes, "split": made.split, "gap": made.gap.to_json()})
    else:
        table(str(made.path), ["made", ""], [["size", f"{made.bytes / 1e6:.2f} MB"], ["split shown", made.split]])


@main.command()
@click.argument("runs", type=FOLDER, nargs=-1, required=True, metavar="RUN...")
@click.option("--markdown", "as_markdown", is_flag=True, help="Print Markdown tables.")
@json_option
def compare(runs: tuple[Path, ...], as_markdown: bool, as_json: bool) -> None:
    """Put finished runs side by side. Runs that differ in their seed alone are one row: mean ± sample deviation."""
    from .compare import cells, compare_runs, markdown, sort_out

    finished, problems = sort_out(runs)
    for problem in problems:
        note(f"left out: {problem}")
    rows = compare_runs(finished)
    if as_json:
        echo_json({"rows": [row.to_json() for row in rows], "left_out": problems})
    else:
        for split in ("validation", "test"):
            columns, lines = cells(rows, split)
            if not lines:
                continue
            if as_markdown:
                click.echo(f"{split}:\n\n{markdown(columns, lines)}\n")
            else:
                table(split, columns, lines)
    if problems:
        click.get_current_context().exit(1)
