"""Embedding groups of clips on a Ray cluster, by Ray Data. Each worker opens the bundle for itself, at the same path as
here; a worker that is lost is started anew, and what it had not given back is done again."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from .bulk import Job
from .clips import Clip
from .embeddings import RowLayout, as_table
from .errors import BackendError
from .model import load
from .sampling import Windows

NUMBER, ROWS = "_group", "_rows"  # columns that travel with a group's rows


@dataclass(frozen=True)
class Cluster:
    """A running cluster's address, or None for one on this machine; how many workers, None for one per two cores."""

    address: str | None = None
    workers: int | None = None


def import_ray() -> Any:
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise BackendError(f"Ray is not installed ({error}); install it: pip install 'vtr-runtime[ray]'") from error
    return ray


@dataclass(frozen=True)
class WorkerSetting:
    """What a worker needs to know beside the clips; folders are the same ones on every machine of the cluster."""

    folder: str
    bundle: str
    threads: int
    windows: Windows | None
    isolate: bool
    options: Mapping[str, Any]  # of `load`


class Embedder:
    """A worker: holds the bundle open, turns a group into its rows. Ray calls it."""

    def __init__(self, setting: WorkerSetting) -> None:
        from .decoding import DecoderHere, DecoderProcesses

        os.chdir(setting.folder)  # relative paths are meant from there
        self._model = load(setting.bundle, **setting.options, threads=setting.threads, spin=False)
        self._layout = RowLayout.of(self._model.manifest)
        decoder = DecoderProcesses() if setting.isolate else DecoderHere()
        self._pipeline = self._model.pipeline(windows=setting.windows, workers=setting.threads, decoder=decoder)

    def __call__(self, batch: pa.Table) -> pa.Table:
        [number], [clips] = batch["group"].to_pylist(), batch["clips"].to_pylist()
        given = [Clip(Path(os.fsdecode(clip["path"])), clip["start"], clip["end"]) for clip in clips]
        found = as_table(list(self._pipeline.embed(given)), self._layout)
        for name, value in ((NUMBER, number), (ROWS, len(found))):
            found = found.append_column(name, pa.array(np.full(len(found), value, np.int64)))
        return found


def embed_groups(
    cluster: Cluster, bundle: Path, job: Job, numbers: Sequence[int], *, options: Mapping[str, Any], isolate: bool
) -> Iterator[tuple[int, pa.Table]]:
    """The rows of each group, as they are done, in any order. `options` are those of `load`.

    BackendError where Ray or the cluster cannot be had."""
    ray = import_ray()
    ours = not ray.is_initialized()
    if ours:
        _connect(ray, cluster.address)
    try:
        yield from _embed_groups(ray, cluster, bundle, job, numbers, options, isolate)
    finally:
        if ours:
            ray.shutdown()


def _connect(ray: Any, address: str | None) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anyone unless the user says so
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        if address and ":" in address:
            _knock(address)  # Ray itself would try for minutes
        # Without an address ray.init() would join a cluster that it finds; "local" is one of its own.
        ray.init(address=address or "local", log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError) as error:
        where = address or "this machine"
        raise BackendError(f"there is no Ray cluster at {where} ({error}); start one: ray start --head") from error


def _knock(address: str) -> None:
    """OSError or ValueError where nothing listens at `HOST:PORT` or `ray://HOST:PORT`."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    socket.create_connection((host, int(port)), timeout=5).close()


def _embed_groups(
    ray: Any,
    cluster: Cluster,
    bundle: Path,
    job: Job,
    numbers: Sequence[int],
    options: Mapping[str, Any],
    isolate: bool,
) -> Iterator[tuple[int, pa.Table]]:
    cores = int(ray.cluster_resources().get("CPU", 1))
    workers = cluster.workers or max(1, cores // 2)
    threads = max(1, cores // workers)
    ray.data.DataContext.get_current().enable_progress_bars = False  # the command has its own
    folder, opened = str(Path.cwd()), str(bundle.resolve())
    setting = WorkerSetting(folder, opened, threads, job.windows, isolate, options)
    path = pa.struct([("path", pa.binary()), ("start", pa.float64()), ("end", pa.float64())])
    groups = [
        [{"path": os.fsencode(clip.path), "start": clip.start, "end": clip.end} for clip in job.group(number)]
        for number in numbers
    ]
    wanted = pa.table({"group": pa.array(numbers, pa.int64()), "clips": pa.array(groups, pa.list_(path))})
    done = (
        ray.data.from_arrow([wanted.slice(row, 1) for row in range(len(wanted))])
        .map_batches(
            Embedder,
            fn_constructor_args=(setting,),
            batch_size=1,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=workers),
            num_cpus=threads,
        )
        .iter_batches(batch_size=None, batch_format="pyarrow")
    )
    yield from _whole_groups(done, job.layout.schema)


def _whole_groups(tables: Iterator[pa.Table], schema: pa.Schema) -> Iterator[tuple[int, pa.Table]]:
    """Blocks may hold several groups, or a part of one; each group is given when all of its rows are there."""
    held: dict[int, list[pa.Table]] = {}
    for block in tables:
        for number in pa.compute.unique(block[NUMBER]).to_pylist():
            rows = block.filter(pa.compute.equal(block[NUMBER], number))
            held.setdefault(number, []).append(rows)
            if sum(map(len, held[number])) == rows[ROWS][0].as_py():
                whole = pa.concat_tables(held.pop(number))
                yield number, whole.select(schema.names).cast(schema)
