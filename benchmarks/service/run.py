"""What does dynamic batching bring? Many clients at once against one at a time, with batching and without, in one run.

    python benchmarks/service/run.py [--bundle BUNDLE] [--clients 64] [--json out/service.json]

Without BUNDLE it is the one of benchmarks/throughput, made where it is not there yet: ViT-B/32 with random weights and
DITS of 10 steps; time does not depend on weights. Two services of it, one with `--batch 64`, one with `--batch 1`, are
asked in turn, round after round, by one client and by all; each client sends its next sentence when it has the answer
to the last. No sentence is sent twice. The library's own rows have neither HTTP nor queue."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from statistics import median

import click
import numpy as np

from vtr_runtime import Model, load
from vtr_runtime.console import SingleCli, note, table

THROUGHPUT = Path(__file__).parents[1] / "throughput"
sys.path.append(str(THROUGHPUT))
from machine import describe_machine  # noqa: E402
from sentences import sentences  # noqa: E402

HEAD = b"POST /v1/texts HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"


@dataclass
class Row:
    """One way of asking. Rates are of rounds, times of all queries."""

    name: str
    clients: int
    rates: list[float] = field(default_factory=list)  # sentences per second
    seconds: list[float] = field(default_factory=list)

    def add(self, seconds: Sequence[float], wall: float) -> None:
        self.rates.append(len(seconds) / wall)
        self.seconds.extend(seconds)

    @property
    def figures(self) -> dict[str, float]:
        p50, p99 = 1000 * np.percentile(self.seconds, [50, 99])
        return {"per_second": median(self.rates), "p50_ms": float(p50), "p99_ms": float(p99)}


@click.command(cls=SingleCli)
@click.option("--bundle", type=click.Path(path_type=Path), help="Another bundle than that of benchmarks/throughput.")
@click.option("--clients", default=64, show_default=True, type=click.IntRange(2))
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1))
@click.option("--queries", default=8, show_default=True, type=click.IntRange(1), help="Of each client in a round.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="A file for the figures and the machine.")
def main(bundle: Path | None, clients: int, rounds: int, queries: int, json_file: Path | None) -> None:
    """Time text queries."""
    bundle = bundle or _standard_bundle()
    model, texts = load(bundle), sentences()
    machine = describe_machine(os.cpu_count() or 1)
    alone, together = Row("library, one sentence a call", 1), Row(f"library, {clients} a call", clients)
    rows = [alone, together]
    with ExitStack() as stack:
        services = []
        for batch in (1, 64):
            port = stack.enter_context(service(bundle, batch))
            pair = [Row(f"service, --batch {batch}", count) for count in (1, clients)]
            services.append((port, pair))
            rows += pair
        for number in range(rounds + 1):  # the first warms up
            note(f"round {number} of {rounds}")
            keep = number > 0
            call_library(alone, model, [list(islice(texts, 1)) for _ in range(2 * queries)], keep)
            call_library(together, model, [list(islice(texts, clients)) for _ in range(queries)], keep)
            for port, pair in services:
                for row in pair:
                    count = queries if row.clients > 1 else 2 * queries
                    asked = [list(islice(texts, count)) for _ in range(row.clients)]
                    seconds, wall = asyncio.run(ask_all(port, asked))
                    if keep:
                        row.add(seconds, wall)
    report(rows, machine, f"{model.manifest.name}, {model.backend_choice}; median of {rounds} rounds", json_file)


def _standard_bundle() -> Path:
    from graphs import standard_folder  # imports PyTorch, which a bundle of the user's does without

    return standard_folder().bundle


@contextmanager
def service(bundle: Path, batch: int) -> Iterator[int]:
    command = [sys.executable, "-m", "vtr_runtime.cli", "serve", str(bundle), "--port", "0", "--batch", str(batch)]
    process = subprocess.Popen([*command, "--timeout", "300"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        url = process.stdout.readline()
        if not url:
            raise click.ClickException("the service did not start; its reason stands above")
        yield int(url.rstrip("/\n").rpartition(":")[2])
    finally:
        process.terminate()
        process.wait()


def call_library(row: Row, model: Model, calls: Sequence[list[str]], keep: bool) -> None:
    begun = time.perf_counter()
    seconds = []
    for texts in calls:
        start = time.perf_counter()
        model.encode_texts(texts)
        seconds += [time.perf_counter() - start] * len(texts)
    if keep:
        row.add(seconds, time.perf_counter() - begun)


async def ask_all(port: int, asked: Sequence[Sequence[str]]) -> tuple[list[float], float]:
    """Seconds of each query, and of all. Clients are connected before the clock starts."""
    clients = [await asyncio.open_connection("127.0.0.1", port) for _ in asked]
    begun = time.perf_counter()
    found = await asyncio.gather(*(ask(*client, texts) for client, texts in zip(clients, asked, strict=True)))
    wall = time.perf_counter() - begun
    for _, writer in clients:
        writer.close()
    return [seconds for each in found for seconds in each], wall


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, texts: Sequence[str]) -> list[float]:
    """One after the other over one connection, with as little of a client as will do: it shares the machine."""
    seconds = []
    for text in texts:
        body = json.dumps({"texts": [text]}).encode()
        start = time.perf_counter()
        writer.write(HEAD % len(body) + body)
        answer = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(answer.partition(b"content-length: ")[2].partition(b"\r\n")[0])
        await reader.readexactly(length)
        seconds.append(time.perf_counter() - start)
        if not answer.startswith(b"http/1.1 200"):
            raise click.ClickException(f"the service answered {answer[:40]!r}")
    return seconds


def report(rows: Sequence[Row], machine: dict[str, object], title: str, json_file: Path | None) -> None:
    base = rows[2].figures["per_second"]  # a service without batching, one client
    lines = [
        (
            row.name,
            row.clients,
            f"{f['per_second']:.1f}",
            f"{f['per_second'] / base:.2f}",
            f"{f['p50_ms']:.0f}",
            f"{f['p99_ms']:.0f}",
        )
        for row in rows
        for f in [row.figures]
    ]
    table(title, ("", "clients", "sentences/s", "x", "p50, ms", "p99, ms"), lines)
    click.echo(f"'x': over one client of the service without batching. {machine['cpu']}, {machine['cores']} cores")
    if json_file is not None:
        figures = [{**asdict(row), **row.figures} for row in rows]
        json_file.write_text(json.dumps({"machine": machine, "title": title, "rows": figures}, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
