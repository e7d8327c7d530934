"""The report as tables."""

from __future__ import annotations

from collections.abc import Iterator

import click

from vtr_runtime.console import printable, table

from .run import CheckReport

SHOWN = 20  # sentences; --json has all


def print_report(report: CheckReport) -> None:
    columns = ["split", "videos", "documented", "with video", "captions", "documented", "tokens", "decoded"]
    table(f"{report.spec}: {report.title}", columns, _split_rows(report))
    rows = list(_cost_rows(report))
    if rows:
        table("Cost", ["", "", "how it is known"], rows)
    for title, sentences in (("problem", report.problems), ("note", report.notes)):
        for sentence in sentences[:SHOWN]:
            click.echo(printable(f"{title}: {sentence}"))
        if len(sentences) > SHOWN:
            click.echo(f"{title}: {len(sentences) - SHOWN:,} more; --json lists them")


def _split_rows(report: CheckReport) -> Iterator[list[str]]:
    for name, split in report.splits.items():
        found, documented, lengths, decoded = split.clips, split.clips.documented, split.lengths, split.decoded
        out = f" + {len(found.held_out):,} held out" if found.held_out else ""
        yield [
            name,
            f"{len(found.clips):,}{out}",
            _number(documented.videos if documented else None),
            f"{len(found.clips) - len(found.absent):,}",
            f"{found.captions:,}",
            _number(documented.captions if documented else None),
            f"median {lengths.median:g}, most {lengths.longest}" if lengths else "-",
            f"{decoded.tried - len(decoded.unreadable)} of {decoded.tried}" if decoded else "none tried",
        ]


def _cost_rows(report: CheckReport) -> Iterator[list[str]]:
    decoded = [split.decoded for split in report.splits.values() if split.decoded]
    if decoded:
        seconds = sum(one.of / one.per_second for one in decoded)
        tried, clips = sum(one.tried for one in decoded), sum(one.of for one in decoded)
        how = f"{clips / seconds:.1f} clips/s here, {tried:,} tried, {clips:,} to do in all splits"
        yield ["decoding, once", _time(seconds), how]
    yield ["decoded frames", f"{report.cache_bytes / 2**30:.2f} GiB", "clips x frames x size x size x 3 bytes"]
    cost = report.cost
    if cost is None:
        return
    sizes = ", ".join(map(str, cost.measured))
    how = f"measured on {cost.device} with batches of {sizes}, random weights, frames in memory"
    if cost.extrapolated:
        how += f"; extrapolated to {cost.batch} on a straight line"
    yield [f"a step of {cost.batch}", _time(cost.step_seconds), how]
    for what, steps in report.steps_a_pass.items():
        yield [f"a pass over the {what}", _time(steps * cost.step_seconds), f"{steps:,} steps; without validation"]
    yield ["the whole run", _time(report.steps * cost.step_seconds), f"{report.steps:,} steps; without validation"]
    parts = (cost.weight_bytes, cost.state_bytes, cost.activation_bytes)
    yield [
        f"memory for {cost.batch}",
        f"{cost.memory_bytes / 2**30:.2f} GiB",
        "estimate from parameters and activations only: {:.2f} weights, {:.2f} gradients and AdamW, {:.2f} "
        "activations; what libraries take comes on top".format(*(part / 2**30 for part in parts)),
    ]
    how = f"measured: most that was held, libraries included, on {cost.device}"
    yield [f"memory for {max(cost.measured)}", f"{cost.peak_bytes / 2**30:.2f} GiB", how]


def _number(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def _time(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
