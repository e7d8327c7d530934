"""The MSR-VTT 9K recipe from annotations to search, on generated clips in MSR-VTT's layout and with a small backbone.

    python benchmarks/rehearsal/run.py --annotations annotations.tar.xz [--videos 36,12,12] [--steps 60]

Every step is the command that a user gives; a step that fails ends the rehearsal. At the end the bundle's search is
held to the checkpoint's own ranking. `--videos 8500,500,1000` is the whole set: subset=yes is then left out."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from layout import SPLITS, lay_out

from vtr_runtime.console import SingleCli, echo_json, note, table
from vtr_runtime.errors import UsageError, VtrError
from vtr_runtime.publish import check_output

RECIPE = Path(__file__).parents[2] / "training" / "recipes" / "msrvtt-9k-mstdt.toml"
SMALL = (  # in place of CLIP, whose weights are not at hand everywhere
    "model.backbone={embed_dim=64, vision_cfg={image_size=64, layers=[1, 1, 1, 1], width=8, head_width=64}, "
    "text_cfg={width=64, heads=2, layers=2}}",
    "model.pretrained=",
    'model.temporal={kind="mstdt", heads=2, mlp_ratio=2.0, init="random", position_init="normal", position_std=0.5}',
    "optim.lr=2e-3",
    "optim.clip_lr=2e-3",
)


NEAR = 1e-4  # cosines that PyTorch and ONNX Runtime may put in another order


@dataclass(frozen=True)
class Done:
    step: str
    seconds: float
    result: str


class Rehearsal:
    """Runs commands beside this interpreter, one after the other, and keeps what each took."""

    def __init__(self) -> None:
        self.steps: list[Done] = []

    def run(self, program: str, *arguments: object, said: str = "") -> Any:
        """What the command prints as JSON. VtrError if it fails."""
        words = [str(Path(sys.executable).with_name(program)), *map(str, arguments), "--json"]
        note(f"$ {program} {shlex.join(words[1:])}")
        began = time.perf_counter()
        done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            raise VtrError(f"{program} {arguments[0]} ended with {done.returncode}; its last words stand above")
        found = json.loads(done.stdout.splitlines()[-1])
        name = program if program == "vtr-export" else f"{program} {arguments[0]}"
        self.steps.append(Done(name, time.perf_counter() - began, said.format_map(found) if said else ""))
        return found


def _counts(_: click.Context, __: click.Parameter, value: str) -> dict[str, int]:
    numbers = value.split(",")
    if len(numbers) != len(SPLITS) or not all(number.isdecimal() for number in numbers):
        raise click.BadParameter(f"{value!r} is not three numbers with commas between them")
    counts = dict(zip(SPLITS, map(int, numbers), strict=True))
    if any(not 2 <= counts[name] <= most for name, most in SPLITS.items()):
        raise click.BadParameter(f"{value!r}: 2 to {', '.join(map(str, SPLITS.values()))} videos")
    return counts


@click.command(cls=SingleCli)
@click.option(
    "--annotations",
    envvar="VTR_ANNOTATIONS",
    required=True,
    type=click.Path(path_type=Path, exists=True),
    help="Folder or .tar.xz with MSR-VTT's lists. [env: VTR_ANNOTATIONS]",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), default="out/rehearsal", show_default=True)
@click.option(
    "--videos", "counts", callback=_counts, default="36,12,12", show_default=True, help="Of train, val and test."
)
@click.option("--steps", type=click.IntRange(2), default=60, show_default=True)
@click.option("--batch", type=click.IntRange(2), default=16, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print the table as JSON.")
def main(annotations: Path, output: Path, counts: dict[str, int], steps: int, batch: int, as_json: bool) -> None:
    """Rehearse MSR-VTT 9K and print what each step took."""
    check_output(output)
    if counts["train"] < batch:
        raise UsageError(f"--batch {batch} is more than the {counts['train']} training videos; lower it")
    began = time.perf_counter()
    data, shards, run, bundle = (output / name for name in ("MSRVTT", "shards", "run", "bundle"))
    spec = lay_out(annotations, data, counts)
    rehearsal = Rehearsal()
    rehearsal.steps.append(Done("lay out", time.perf_counter() - began, f"{sum(counts.values())} videos, 10,000 ids"))
    settings = [*SMALL, f"steps={steps}", f"batches.size={batch}", f"validation.every={max(1, steps // 4)}"]
    given = [word for setting in settings for word in ("--set", setting)]
    prepared = f"prepared:{shards}"
    frames = "{splits[train][with_video]} + {splits[val][with_video]} + {splits[test][with_video]} videos"
    rehearsal.run("vtr-train", "check", RECIPE, "--data", spec, *given, said=frames)
    shown = "{splits[train][readable]} + {splits[val][readable]} + {splits[test][readable]} videos, {format}"
    rehearsal.run("vtr-train", "prepare", spec, "--recipe", RECIPE, *given, "-o", shards, said=shown)
    rehearsal.run("vtr-train", "check", RECIPE, "--data", prepared, *given, "--no-cost", said="from the shards alone")
    fit = ("--set", f"data.spec={prepared}", *given, "-o", run)
    rehearsal.run("vtr-train", "fit", RECIPE, *fit, said="best {metric} {best_value:.2f} at step {best_step}")
    queries = output / "queries.jsonl"
    evaluated = ("--data", prepared, "--per-query", queries)
    rehearsal.run("vtr-train", "evaluate", run, *evaluated, said="Rsum {Rsum:.1f} on test")
    rehearsal.run(
        "vtr-export", "--ckpt", run / "best.pt", "--target", "onnx", "-o", bundle, said="{precision}, every gate met"
    )
    _search(rehearsal, bundle, data, queries, output, counts["test"])
    if as_json:
        echo_json([vars(done) for done in rehearsal.steps])
    else:
        rows = [[done.step, f"{done.seconds:.1f}", done.result] for done in rehearsal.steps]
        table(f"{output}: rehearsed in {time.perf_counter() - began:.0f} s", ["step", "seconds", "result"], rows)


def _search(rehearsal: Rehearsal, bundle: Path, data: Path, queries: Path, output: Path, count: int) -> None:
    """Embed the test videos with the bundle, search by every test sentence, and hold what comes first to the
    checkpoint's own ranking. VtrError where they differ."""
    lines = [json.loads(line) for line in queries.read_text(encoding="utf-8").splitlines()]
    asked = [line for line in lines if line["direction"] == "t2v"]
    listed = output / "test.txt"
    videos = [data / "videos" / "all" / Path(line["clip"]["video"]).name for line in asked]
    listed.write_text("".join(f"{video}\n" for video in videos), encoding="utf-8")
    rows, index = output / "test.parquet", output / "test.vtri"
    rehearsal.run("vtr-runtime", "embed", bundle, "--list", listed, "-o", rows, said="{ok} videos")
    rehearsal.run("vtr-runtime", "index", bundle, rows, "-o", index, said="{count} rows of {dim}")
    found = rehearsal.run("vtr-runtime", "search", bundle, index, *(line["caption"] for line in asked), "-k", 1)
    differing = [line["caption"] for line, got in zip(asked, found, strict=True) if not _agrees(line, got["hits"][0])]
    if differing:
        raise VtrError(f"{len(differing)} of {count} sentences find another video than in evaluate: {differing[:3]}")
    last = rehearsal.steps.pop()
    said = f"{len(asked)} sentences, each finds first what it does in evaluate"
    rehearsal.steps.append(Done(last.step, last.seconds, said))


def _agrees(line: dict[str, Any], hit: dict[str, Any]) -> bool:
    """The first hit is the right video or the best wrong one, whichever evaluate has first; near ties may turn."""
    right, wrong = (Path(line[name]["video"]).name for name in ("clip", "wrong_clip"))
    best = right if line["margin"] > 0 else wrong
    return Path(hit["path"]).name == best or (abs(line["margin"]) < NEAR and Path(hit["path"]).name in (right, wrong))


if __name__ == "__main__":
    main()
