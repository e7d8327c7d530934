"""`vtr-runtime embed`"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..console import echo_json, json_option, note, progress, table
from ..errors import UsageError
from .options import BackendChoice, backend_options, bundle_argument, overwrite_option

if TYPE_CHECKING:
    from ..clips import EmbeddedClip

# A folder is searched for these; a file that is named itself is always tried.
VIDEO_SUFFIXES = frozenset(
    ".3gp .avi .flv .gif .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .ogv .ts .webm .wmv".split()  # noqa: SIM905
)


@click.command()
@bundle_argument
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Parquet file to write.")
@click.option("--window", type=float, metavar="SECONDS", help="Cut videos into parts, a row each, to find moments.")
@click.option("--stride", type=float, metavar="SECONDS", help="From one part to the next. [default: the window]")
@backend_options
@overwrite_option
@json_option
def embed(
    bundle: Path,
    paths: tuple[Path, ...],
    output: Path,
    window: float | None,
    stride: float | None,
    backend: BackendChoice,
    overwrite: bool,
    as_json: bool,
) -> int:
    """Embed the videos PATHS (files, or folders searched for videos) into a Parquet file.

    A file from which no frame can be had is named and gets a row without an embedding; the others are done.

    \b
    vtr-runtime embed bundle/ VIDEOS/ -o videos.parquet
    vtr-runtime embed bundle/ match.mp4 -o moments.parquet --window 10 --stride 5"""
    from ..clips import Clip
    from ..embeddings import RowLayout, write_embeddings
    from ..model import load
    from ..publish import check_output, staged_file
    from ..sampling import Windows

    if window is None and stride is not None:
        raise UsageError("--stride says how far the parts of --window lie apart; give --window too")
    windows = None if window is None else Windows(window, window if stride is None else stride)
    check_output(output, overwrite=overwrite)
    model = load(bundle, **backend)
    note(f"backend: {model.backend_choice}")
    files, skipped = find_videos(paths)
    counts = {"ok": 0, "warning": 0, "error": 0}
    problems: list[dict[str, str]] = []

    def rows() -> Iterator[EmbeddedClip]:
        with progress("embed", len(files) if windows is None else None) as bar:
            for item in model.embed_clips((Clip(path) for path in files), windows=windows):
                counts[item.status] += 1
                if item.status != "ok":
                    problem = {"path": str(item.clip.path), "status": item.status, "message": item.message}
                    if problem not in problems[-1:]:  # windows of one file say the same of it
                        problems.append(problem)
                bar.advance()
                yield item

    with staged_file(output) as staged:
        write_embeddings(staged, rows(), RowLayout.of(model.manifest))
    for problem in problems:
        note(f"{problem['status']}: {problem['message']}")
    if skipped:
        note(f"skipped: {len(skipped)} files in the folders are not named like videos, such as {skipped[0]}")
    if as_json:
        echo_json({"output": str(output), **counts, "problems": problems, "skipped": [str(path) for path in skipped]})
    else:
        parts = () if windows is None else (sum(counts.values()),)
        done = counts["ok"] + counts["warning"]
        columns = ("videos", *(["parts"] if parts else []), "embedded", "of these damaged", "not embedded")
        table(str(output), columns, [(len(files), *parts, done, counts["warning"], counts["error"])])
        click.echo(f"next: vtr-runtime index {bundle} {output} -o {output.with_suffix('.vtri')}")
    return 1 if counts["error"] else 0


def find_videos(paths: Iterable[Path]) -> tuple[list[Path], list[Path]]:
    """Files to embed, as given and folders in sorted order; and what was passed over in folders."""
    videos: list[Path] = []
    skipped: list[Path] = []
    for path in paths:
        if not path.is_dir():
            videos.append(path)
            continue
        for file in sorted(item for item in path.rglob("*") if item.is_file()):
            (videos if file.suffix.lower() in VIDEO_SUFFIXES else skipped).append(file)
    return list(dict.fromkeys(videos)), skipped  # a file that is named twice is embedded once
