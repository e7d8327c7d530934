"""The modality gap of the alignment rows, and hard negatives of the base, from finished runs of run.py.

    python benchmarks/ablation/pictures.py out/ablation docs/pictures

Writes gap.png (dits from a normalised start) and hard-negatives.png (the base), of seed 0, and prints the gap table of
docs/ablation.md: the test split's matched pairs, unit vectors, mean over the seeds."""

from __future__ import annotations

import sys
from pathlib import Path
from statistics import fmean

import click

from vtr_export.model.checkpoint import load_checkpoint
from vtr_training.data.split import Split, load_split
from vtr_training.embed import make_tokenizer
from vtr_training.run_report.confusions import find_mistakes, show
from vtr_training.run_report.embeddings import BeforeAfter, embed_before_after
from vtr_training.run_report.pictures import draw_gap, draw_hard_negatives

ROWS = (
    "mstdt-a",
    "joint-mlp-of-equal-size",
    "joint-dits-t1",
    "joint-dits-t5",
    "joint-dits-t10",
    "joint-dits-t10-small-steps",
    "joint-dits-t10-start-normalised",
    "joint-dits-t10-gap-t-v",
    "behind-dits-t10-clip-and-head-fixed",
    "behind-dits-t10-joint",
)
SHOWN = "joint-dits-t10-start-normalised"
BASE = "mstdt-a"
HARD_NEGATIVES = 4


@click.command()
@click.argument("output", type=click.Path(path_type=Path, exists=True))
@click.argument("pictures", type=click.Path(path_type=Path))
def main(output: Path, pictures: Path) -> None:
    """Draw into PICTURES and print the table."""
    pictures.mkdir(parents=True, exist_ok=True)
    print("| row | L1 before | L1 after | L2 before | L2 after | mean gap before | after | cosine before | after |")
    print("| --- " * 9 + "|")
    for row in ROWS:
        seeds = sorted(path.parent for path in (output / "runs" / row).glob("*/best.pt"))
        embedded = [_embed(output, run)[1] for run in seeds]
        gaps = [(found.gap.before.to_json(), found.gap.after.to_json()) for found in embedded]
        cells = []
        for key, digits in (("mean_l1", 2), ("mean_l2", 3), ("mean_gap_norm", 3), ("mean_similarity", 3)):
            cells += [f"{fmean(pair[side][key] for pair in gaps):.{digits}f}" for side in (0, 1)]
        print(f"| {row} | {' | '.join(cells)} |")
    draw_gap(_embed(output, output / "runs" / SHOWN / "0")[1].gap, pictures / "gap.png")
    split, found = _embed(output, output / "runs" / BASE / "0")
    mistakes = find_mistakes(found.scores_after, found.owners, split.videos)
    shown = show(mistakes, mistakes.by_hardness(), split.frames, found.owners, HARD_NEGATIVES)
    draw_hard_negatives(shown, pictures / "hard-negatives.png")


def _embed(output: Path, run: Path) -> tuple[Split, BeforeAfter]:
    model = load_checkpoint(run / "best.pt").model
    split = load_split(output / "data", "test", model.config.frames, make_tokenizer(model.config))
    return split, embed_before_after(model, split)


if __name__ == "__main__":
    sys.exit(main())
