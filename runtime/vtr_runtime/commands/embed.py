"""`vtr-runtime embed`"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..console import echo_json, json_option, note, progress, table
from ..errors import UsageError
from .options import BackendChoice, backend_options, bundle_argument, decoder_option, overwrite_option

if TYPE_CHECKING:
    from ..bulk import Job, Parts
    from ..clips import Clip, EmbeddedClip
    from ..console import Progress
    from ..media.nvdec import Nvdec
    from ..model import Model


@click.command()
@bundle_argument
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--list", "lists", multiple=True, type=click.Path(path_type=Path),
    help="More videos: a text file, a path a line (- is standard input), or Parquet with path, start, end.",
)  # fmt: skip
@click.option(
    "--known", type=click.Path(path_type=Path), metavar="INDEX",
    help="Leave out the files that this index (.vtri) has, unchanged since by size and time.",
)  # fmt: skip
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Parquet file to write.")
@click.option("--window", type=float, metavar="SECONDS", help="Cut videos into parts, a row each, to find moments.")
@click.option("--stride", type=float, metavar="SECONDS", help="From one part to the next. [default: the window]")
@click.option("--isolate", is_flag=True, help="Decode in processes of their own, which a hostile file may end.")
@decoder_option
@click.option("--engine", type=click.Choice(["local", "ray"]), default="local", show_default=True, help="Who does it.")
@click.option("--ray-workers", type=click.IntRange(1), help="Processes of the cluster. [default: one per two cores]")
@click.option("--ray-address", metavar="ADDRESS", help="A running cluster's. [default: a cluster on this machine]")
@backend_options
@overwrite_option
@click.option("--restart", is_flag=True, help="Throw away what an unfinished run with this output has done.")
@json_option
def embed(
    bundle: Path,
    paths: tuple[Path, ...],
    lists: tuple[Path, ...],
    known: Path | None,
    output: Path,
    window: float | None,
    stride: float | None,
    isolate: bool,
    decoder: str,
    engine: str,
    ray_workers: int | None,
    ray_address: str | None,
    backend: BackendChoice,
    overwrite: bool,
    restart: bool,
    as_json: bool,
) -> int:
    """Embed the videos PATHS (files, folders searched for videos, patterns in quotes) into a Parquet file.

    A file from which no frame can be had is named and gets a row without an embedding; the others are done. A run that
    is interrupted or killed goes on where it was when the same command is given again.

    \b
    vtr-runtime embed bundle/ VIDEOS/ 'more/**/*.mp4' -o videos.parquet
    vtr-runtime embed bundle/ match.mp4 -o moments.parquet --window 10 --stride 5
    vtr-runtime embed bundle/ --list manifest.parquet -o videos.parquet --engine ray"""
    # Read when Arrow is imported. Its own pool keeps more with every part: 20 MB over 1,000 clips, the system's 6.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    from ..bulk import Job, Parts
    from ..clip_lists import gather
    from ..embeddings import RowLayout
    from ..media.nvdec import Nvdec
    from ..model import load
    from ..publish import check_output
    from ..sampling import Windows

    if window is None and stride is not None:
        raise UsageError("--stride says how far the parts of --window lie apart; give --window too")
    if not (paths or lists):
        raise UsageError("there is nothing to embed; give files, folders or patterns, or a list with --list")
    if engine != "ray" and (ray_workers or ray_address):
        raise UsageError("--ray-workers and --ray-address are for --engine ray; give that too, or leave them out")
    if decoder == "nvdec" and (isolate or engine == "ray"):
        raise UsageError("--decoder nvdec decodes in this process alone; leave out --isolate and --engine ray")
    windows = None if window is None else Windows(window, window if stride is None else stride)
    check_output(output, overwrite=overwrite)
    found = gather(paths, lists)
    if not found.clips:
        raise UsageError(f"no video was found, and {len(found.skipped)} files that are not named like one; name them")
    nvdec = Nvdec() if decoder == "nvdec" else None
    model = load(bundle, **backend, spin=False)  # decoding needs the cores, too
    note(f"backend: {model.backend_choice}")
    clips, unchanged = (found.clips, 0) if known is None else _without_known(found.clips, known, model.space)
    if unchanged:
        note(f"{unchanged} of {len(found.clips)} videos are in {known} and unchanged since")
    job = Job(clips, RowLayout.of(model.manifest), model.backend.name, windows)
    parts = Parts(output, job)
    with parts.opened(restart=restart):
        missing = parts.missing()
        done = len(job.clips) - sum(len(job.group(number)) for number in missing)
        if done:
            note(f"{done} of {len(job.clips)} videos were done by an earlier run")
        try:
            with progress("embed", len(job.clips), done=done) as bar:
                if engine == "ray":
                    _embed_on_ray(model, backend, job, parts, missing, bar, ray_workers, ray_address, isolate)
                else:
                    _embed_here(model, job, parts, missing, bar, isolate, nvdec)
        except KeyboardInterrupt:
            note(f"what is done lies in {parts.folder}; the same command goes on with it")
            raise
        summary = parts.merge()
    if nvdec is not None:
        note(str(nvdec))
    for problem in summary.problems:
        note(f"{problem['status']}: {problem['message']}")
    if summary.problems_left_out:
        note(f"and {summary.problems_left_out} more; the column error of {output} has them all")
    if found.skipped:
        count, first = len(found.skipped), found.skipped[0]
        note(f"skipped: {count} files in the folders are not named like videos, such as {first}")
    counts = {status: summary.rows[status] for status in ("ok", "warning", "error")}
    if as_json:
        skipped = [str(path) for path in found.skipped]
        echo_json({"output": str(output), **counts, "problems": summary.problems, "skipped": skipped})
    else:
        rows = () if windows is None else (sum(counts.values()),)
        columns = ("videos", *(["parts"] if rows else []), "embedded", "of these damaged", "not embedded")
        done = counts["ok"] + counts["warning"]
        table(str(output), columns, [(len(job.clips), *rows, done, counts["warning"], counts["error"])])
        click.echo(f"next: vtr-runtime index {bundle} {output} -o {output.with_suffix('.vtri')}")
    return 1 if counts["error"] else 0


def _without_known(clips: Sequence[Clip], known: Path, space: str) -> tuple[tuple[Clip, ...], int]:
    """The clips whose files are new to an index or changed since, and how many are not."""
    from ..clips import FileStamp
    from ..index import Index, check_space

    index = Index(known)
    check_space(index, space)
    files = index.files()
    stamps = [files.get(os.fsencode(clip.path)) for clip in clips]
    left = tuple(
        clip for clip, stamp in zip(clips, stamps, strict=True) if stamp is None or stamp != FileStamp.of(clip.path)
    )
    return left, len(clips) - len(left)


def _embed_here(
    model: Model, job: Job, parts: Parts, missing: Sequence[int], bar: Progress, isolate: bool, nvdec: Nvdec | None
) -> None:
    from ..bulk import write_groups
    from ..decoding import DecoderHere, DecoderProcesses

    decoder = DecoderProcesses() if isolate else DecoderHere(nvdec=nvdec)
    try:
        pipeline = model.pipeline(windows=job.windows, decoder=decoder)
        rows = pipeline.embed_groups(job.group(number) for number in missing)
        write_groups(parts, missing, _counted(rows, bar, job), job.layout)
    finally:
        decoder.close()


def _counted(rows: Iterator[tuple[int, EmbeddedClip]], bar: Progress, job: Job) -> Iterator[tuple[int, EmbeddedClip]]:
    """The same rows; the bar counts videos, of which each window is a part."""
    last: Path | None = None
    for place, item in rows:
        if job.windows is None or item.clip.path != last:
            bar.advance()
        last = item.clip.path
        yield place, item


def _embed_on_ray(
    model: Model,
    backend: BackendChoice,
    job: Job,
    parts: Parts,
    missing: Sequence[int],
    bar: Progress,
    workers: int | None,
    address: str | None,
    isolate: bool,
) -> None:
    from ..on_ray import Cluster, embed_groups

    cluster = Cluster(address, workers)
    options = {**backend, "backend": model.backend.name}  # what was chosen here runs there
    for number, found in embed_groups(cluster, model.bundle.folder, job, missing, options=options, isolate=isolate):
        parts.write(number, [found])
        bar.advance(len(job.group(number)))
