"""What each part of the methods is worth on the generated motion clips: every row of rows.toml, several seeds.

    python benchmarks/ablation/run.py -o out/ablation [--seeds 3] [--jobs 2] [--quick]

Each run is `vtr-train fit` on recipe.toml with the row's settings, then an evaluation on the test split, which chose
nothing. Resumable: what is finished is kept, what was begun goes on. Ends with tables.md in the folder, the tables of
docs/ablation.md. `--quick` trains every row for two steps on a few clips: it proves that all rows run, nothing else."""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from pathlib import Path

import click
from plan import HERE, STAND_IN, Row, in_rounds, read_sections
from tables import write_tables

RECIPE = HERE / "recipe.toml"
STAND_IN_RECIPE = HERE.parents[1] / "training" / "recipes" / "demo-mean.toml"
QUICK = ("steps=2", "batches.size=8", "validation.every=2")
QUICK_CLIPS = 32


@click.command()
@click.option("-o", "--output", type=click.Path(path_type=Path), default="out/ablation", show_default=True)
@click.option("--seeds", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--jobs", type=click.IntRange(min=1), default=os.cpu_count(), show_default=True, help="Runs at once.")
@click.option("--quick", is_flag=True, help="One seed, two steps, few clips: do all rows run?")
def main(output: Path, seeds: int, jobs: int, quick: bool) -> None:
    """Train every row, evaluate it, write the tables."""
    sections = read_sections()
    numbers = range(1 if quick else seeds)
    write_data(output / "data", quick=quick)
    rounds = [[Row(STAND_IN, "", (), "", None)], *in_rounds(sections)]
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        for rows in rounds:
            work = [(row, seed) for row in rows for seed in numbers]
            for row, seed in pool.map(partial(train_and_test, output=output, quick=quick), work):
                click.echo(f"{row.id}, seed {seed}: done", err=True)
    write_tables(sections, output / "runs", list(numbers), output / "tables.md")
    click.echo(output / "tables.md")


def write_data(folder: Path, *, quick: bool) -> None:
    from vtr_training.demo.plan import DemoSize
    from vtr_training.demo.write import write_demo_data

    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        small = DemoSize(train_clips=QUICK_CLIPS, val_groups=4, test_groups=4, test_plain=4)
        write_demo_data(folder, size=small if quick else DemoSize(), seed=0)


def train_and_test(work: tuple[Row, int], *, output: Path, quick: bool) -> tuple[Row, int]:
    """One run, from its start to test.json; what it says goes to a log beside it. In a process of the pool."""
    import torch

    torch.set_num_threads(1)
    row, seed = work
    run = output / "runs" / row.id / str(seed)
    run.parent.mkdir(parents=True, exist_ok=True)
    if not (run / "test.json").is_file():
        with run.with_name(f"{seed}.log").open("a") as log, redirect_stdout(log), redirect_stderr(log):
            _train(row, seed, output, run, quick)
            _test(row, output / "data", run)
    return row, seed


def _train(row: Row, seed: int, output: Path, run: Path, quick: bool) -> None:
    from vtr_training.loop import fit
    from vtr_training.recipe import read_recipe

    settings = [f"seed={seed}", f"data.spec={output / 'data'}", *row.settings, *(QUICK if quick else ())]
    if row.id != STAND_IN:
        settings.append(f"model.start_from={output / 'runs' / row.start / str(seed) / 'best.pt'}")
    recipe = read_recipe(STAND_IN_RECIPE if row.id == STAND_IN else RECIPE, settings)
    if not (run / "summary.json").is_file():
        fit(recipe, run, resume=(run / "last.pt").is_file())


def _test(row: Row, data: Path, run: Path) -> None:
    """test.json: the first stage on the test split, and `second_stage` where the row has one."""
    from vtr_export.model.checkpoint import load_checkpoint
    from vtr_runtime.parts_of_speech import HantaTagger
    from vtr_training.data.split import load_split
    from vtr_training.embed import embed_split, make_tokenizer
    from vtr_training.evaluate import evaluate_embeddings
    from vtr_training.second_stage import evaluate_second_stage

    model = load_checkpoint(run / "best.pt").model
    tagger = HantaTagger() if model.config.rerank.weighs_words else None
    test = load_split(data, "test", model.config.frames, make_tokenizer(model.config), tagger=tagger)
    split = embed_split(model, test, batch=64, tokens=row.top_k is not None)
    found = evaluate_embeddings(split.clips, split.video, split.text, split.owners).to_json()
    if row.top_k is not None:
        found["second_stage"] = evaluate_second_stage(model, split, row.top_k).to_json()
    (run / "test.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
