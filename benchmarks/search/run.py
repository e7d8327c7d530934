"""How long does a search take over a million embeddings, exact and approximate, and what does the latter find?

    python benchmarks/search/run.py [--rows 1000000] [--like my.vtri] [--json result.json] [-o out/search]

The rows are a mixture of clusters (clusters.py) in an index as `vtr-runtime index` writes it. Every step runs in a
process of its own, so that its memory is its own. Queries are of two kinds: held-out draws of the mixture, as from
video to video, and "sentences" from a cone of their own, as from text to video. Recall is the share of the ten best of
the exact float32 search."""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import click
import numpy as np
from clusters import Mixture, Spread, measure_spread

from vtr_runtime.console import SingleCli, note, table
from vtr_runtime.index import Index, open_rows, plan_update, write_index, write_update
from vtr_runtime.index.approximate import AnnSettings, ann_path, build_ann

sys.path.append(str(Path(__file__).parents[1] / "throughput"))
from machine import describe_machine

EXPANSIONS = (64, 128, 256, 512, 1024)
AT, SINGLE, BATCH, QUERIES = 10, 100, 64, 500
Result = TypeVar("Result")


@dataclass(frozen=True)
class Built:
    """What a file cost: seconds, the most memory its process had, and its size."""

    seconds: float
    peak_mb: float
    disk_mb: float


@dataclass(frozen=True)
class Searched:
    """Milliseconds of one query, and of a query in a batch; memory of the process, of which the kernel can take back
    what is mapped; recall by kind of query."""

    p50_ms: float
    p90_ms: float
    batch_ms: float
    own_mb: float
    mapped_mb: float
    recall: dict[str, float]


@click.command(cls=SingleCli)
@click.option("-o", "--output", type=click.Path(path_type=Path), default="out/search", show_default=True)
@click.option("--rows", type=click.IntRange(BATCH), default=1_000_000, show_default=True)
@click.option("--dim", type=click.IntRange(2), default=512, show_default=True)
@click.option("--clusters", type=click.IntRange(1), default=10_000, show_default=True)
@click.option("--between", type=float, default=Spread.between, show_default=True, help="Mean cosine of any two rows.")
@click.option("--within", type=float, default=Spread.within, show_default=True, help="Mean cosine in a cluster.")
@click.option("--like", type=click.Path(path_type=Path), help="Measure both on this index instead.")
@click.option("--connectivity", type=int, default=AnnSettings.connectivity, show_default=True)
@click.option("--expansion-add", type=int, default=AnnSettings.expansion_add, show_default=True)
@click.option("--json", "report", type=click.Path(path_type=Path), help="Also write the figures here.")
def main(
    output: Path,
    rows: int,
    dim: int,
    clusters: int,
    between: float,
    within: float,
    like: Path | None,
    connectivity: int,
    expansion_add: int,
    report: Path | None,
) -> None:
    """Make the indexes, search them and print one table."""
    output.mkdir(parents=True, exist_ok=True)
    machine, began = describe_machine(os.cpu_count() or 1), time.perf_counter()
    if like is not None:
        between, within = measure_spread(Index(like))
        note(f"{like}: two rows have the mean cosine {between:.2f}, a row and its ten nearest {within:.2f}")
    mixture = Mixture.of(rows, dim, clusters, Spread(between, within))
    note(f"drawing {rows} rows")
    alone(draw, mixture, output / "drawn.vtri")
    settings = AnnSettings(connectivity=connectivity, expansion_add=expansion_add)
    built = {
        "exact f32": alone(write, output / "drawn.vtri", output / "f32.vtri", False),
        "exact f16": alone(write, output / "drawn.vtri", output / "f16.vtri", True),
    }
    note("building the graph")
    built["ann"] = alone(build, output / "f32.vtri", settings)
    queries = {
        "videos": mixture.rows(QUERIES, seed=rows + 10**6),
        "sentences": mixture.sentences(QUERIES, seed=rows + 10**6),
    }
    note("searching")
    truth = alone(exact, output / "f32.vtri", queries)
    searched = {
        "exact f32": alone(search, output / "f32.vtri", queries, truth, None),
        "exact f16": alone(search, output / "f16.vtri", queries, truth, None),
        **{f"ann {e}": alone(search, output / "f32.vtri", queries, truth, e) for e in EXPANSIONS},
    }
    show(rows, dim, built, searched)
    click.echo(f"{time.perf_counter() - began:.0f} s in all; {machine['cpu']}, {machine['cores']} cores")
    if report is not None:
        spread = asdict(mixture.spread) | {"rows": rows, "dim": dim, "clusters": clusters}
        figures = {
            kind: {name: asdict(row) for name, row in part.items()}
            for kind, part in (("built", built), ("searched", searched))
        }
        report.write_text(json.dumps({"machine": machine, "data": spread, "graph": asdict(settings), **figures}))


def alone(work: Callable[..., Result], *arguments: Any) -> Result:
    """Run in a fresh process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def draw(mixture: Mixture, path: Path) -> None:
    write_index(path, mixture)


def write(source: Path, path: Path, half: bool) -> Built:
    start = time.perf_counter()
    write_update(path, plan_update([open_rows(source)]), half=half)
    return Built(time.perf_counter() - start, peak_mb(), path.stat().st_size / 1e6)


def build(path: Path, settings: AnnSettings) -> Built:
    seconds = build_ann(Index(path), ann_path(path), settings)
    return Built(seconds, peak_mb(), ann_path(path).stat().st_size / 1e6)


def exact(path: Path, queries: dict[str, Any]) -> dict[str, list[Any]]:
    index = Index(path)
    return {kind: [rows for _, rows in index.search_rows(some, AT)] for kind, some in queries.items()}


def search(path: Path, queries: dict[str, Any], truth: dict[str, list[Any]], expansion: int | None) -> Searched:
    index = Index(path, ann=expansion is not None, expansion=expansion)
    found = {kind: [rows for _, rows in index.search_rows(some, AT)] for kind, some in queries.items()}  # and warms up
    mixed = np.concatenate([some[: SINGLE // len(queries)] for some in queries.values()])
    single = [timed(index, query[None]) for query in mixed]
    some = np.concatenate([some[: BATCH // len(queries)] for some in queries.values()])
    batch = np.median([timed(index, some) for _ in range(5)]) / len(some)
    own, mapped = (memory_mb(name) for name in ("RssAnon", "RssFile"))
    recall = {kind: share(truth[kind], rows) for kind, rows in found.items()}
    return Searched(float(np.median(single)), float(np.quantile(single, 0.9)), float(batch), own, mapped, recall)


def timed(index: Index, queries: Any) -> float:
    """Milliseconds."""
    start = time.perf_counter()
    index.search(queries, AT)
    return 1000 * (time.perf_counter() - start)


def share(truth: Sequence[Any], found: Sequence[Any]) -> float:
    return float(np.mean([np.isin(want, got).mean() for want, got in zip(truth, found, strict=True)]))


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def memory_mb(name: str) -> float:
    """Of this process now, as Linux counts it."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[name].split()[0]) / 1e3


def show(rows: int, dim: int, built: dict[str, Built], searched: dict[str, Searched]) -> None:
    columns = ("", "1 query p50, ms", "p90", "in 64, ms each", "recall@10 videos", "sentences", "build s")
    columns += ("peak MB", "disk MB", "search MB", "mapped MB")
    lines = []
    for name, row in searched.items():
        cost = built[name if name in built else "ann"]
        times = (f"{row.p50_ms:.2f}", f"{row.p90_ms:.2f}", f"{row.batch_ms:.2f}")
        found = tuple(f"{row.recall[kind]:.3f}" for kind in ("videos", "sentences"))
        build_cost = (f"{cost.seconds:.0f}", f"{cost.peak_mb:.0f}", f"{cost.disk_mb:.0f}")
        lines.append((name, *times, *found, *build_cost, f"{row.own_mb:.0f}", f"{row.mapped_mb:.0f}"))
    table(f"{rows} embeddings of {dim}", columns, lines)


if __name__ == "__main__":
    sys.exit(main())
