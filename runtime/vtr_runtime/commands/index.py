"""`vtr-runtime index`"""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..console import echo_json, json_option, note, progress, table
from ..errors import UsageError
from .options import BackendChoice, backend_options, bundle_argument, overwrite_option

if TYPE_CHECKING:
    from ..index import Update
    from ..index.approximate import AnnReport, AnnSettings
    from ..rows import EmbeddingTable

RECALL_QUERIES, RECALL_COSINE = 500, 0.8
FAILURES_SHOWN = 5


@click.command()
@bundle_argument
@click.argument("inputs", metavar="[INPUT]...", nargs=-1, type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Index (.vtri) to write.")
@click.option("--texts", type=click.Path(path_type=Path), help="Index the sentences of this file, one a line.")
@click.option("--delete", metavar="PATH", multiple=True, help="Leave out this file, or all files of this folder.")
@click.option("--prune", is_flag=True, help="Leave out files that are gone, or changed since they were embedded.")
@click.option("--half/--full", default=None, help="Keep float16 or float32. [default: as the first INPUT, else full]")
@click.option("--no-frames", is_flag=True, help="Leave out the frames' embeddings, which only search --rerank reads.")
@click.option("--ann", is_flag=True, help="Also write OUTPUT.usearch for search --ann, and measure what it finds.")
@click.option("--connectivity", type=click.IntRange(2), help="Of --ann: neighbours of a row. [default: 16]")
@click.option("--expansion-add", type=click.IntRange(1), help="Of --ann: candidates for neighbours. [default: 128]")
@click.option("--expansion-search", type=click.IntRange(1), help="Of --ann: candidates of a search. [default: 256]")
@click.option("--ann-storage", "storage", type=click.Choice(["f16", "f32"]), help="Of --ann. [default: f16]")
@click.option(
    "--ann-queries", type=click.Path(path_type=Path), help="Of --ann: measure with these sentences, one a line."
)
@backend_options
@overwrite_option
@json_option
def index(
    bundle: Path,
    inputs: tuple[Path, ...],
    output: Path,
    texts: Path | None,
    delete: tuple[str, ...],
    prune: bool,
    half: bool | None,
    no_frames: bool,
    ann: bool,
    ann_queries: Path | None,
    backend: BackendChoice,
    overwrite: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    """Make a searchable index of INPUTs, embeddings (.parquet) and indexes (.vtri), without embedding anything again.

    A file that a later INPUT has too replaces the earlier one's rows.

    \b
    vtr-runtime index bundle/ videos.parquet -o videos.vtri
    vtr-runtime index bundle/ videos.vtri new.parquet -o videos.vtri --overwrite
    vtr-runtime index bundle/ videos.vtri -o videos.vtri --overwrite --prune --delete old/
    vtr-runtime index bundle/ --texts captions.txt -o captions.vtri"""
    from ..bundle import open_bundle
    from ..index import open_rows, plan_update, write_update
    from ..index.approximate import ann_path, import_usearch
    from ..publish import check_output, staged_file
    from ..rows import RowSource

    if not inputs and texts is None:
        raise UsageError("there is nothing to index; give embeddings (.parquet), an index (.vtri) or --texts FILE")
    asked = _ann_settings(settings, ann, ann_queries)
    check_output(output, overwrite=overwrite)
    if asked is not None:
        check_output(ann_path(output), overwrite=overwrite)
        import_usearch()
    space = open_bundle(bundle).manifest.space
    sources: list[RowSource] = [open_rows(path) for path in inputs]
    if texts is not None:
        sources.append(_embed_sentences(bundle, backend, texts))
    update = plan_update(sources, space=space, delete=[os.fsencode(path) for path in delete], prune=prune)
    keep_half = sources[0].half if half is None else half
    with staged_file(output) as staged, progress("index", update.count) as bar:
        write_update(staged, update, half=keep_half, frames=not no_frames, advance=bar.advance)
    report = None if asked is None else _build_ann(bundle, backend, output, asked, ann_queries)
    _tell(update, output)
    if as_json:
        echo_json(_plain(update, output, space, report))
        return
    _show(update, output, report)
    query = "--video clip.mp4" if sources[0].kind == "text" else '"a sentence"'
    click.echo(f"next: vtr-runtime search {bundle} {output} {query} -k 10{'' if report is None else ' --ann'}")


def _ann_settings(given: dict[str, Any], ann: bool, queries: Path | None) -> AnnSettings | None:
    from ..index.approximate import AnnSettings

    chosen = {name: value for name, value in given.items() if value is not None}
    if ann:
        return AnnSettings(**chosen)
    if chosen or queries is not None:
        raise UsageError("the settings of an approximate index were given without --ann; add it, or leave them out")
    return None


def _embed_sentences(bundle: Path, backend: BackendChoice, path: Path) -> EmbeddingTable:
    from ..index.sentences import read_sentences, sentence_rows
    from ..model import load

    sentences = read_sentences(path)
    model = load(bundle, **backend)
    note(f"backend: {model.backend_choice}")
    return sentence_rows(sentences, model.encode_texts(sentences), model.space, str(path))


def _build_ann(
    bundle: Path, backend: BackendChoice, output: Path, settings: AnnSettings, sentences: Path | None
) -> AnnReport:
    from ..index import Index
    from ..index.approximate import AnnReport, ann_path, build_ann, measure_recall, near_rows
    from ..publish import staged_file

    opened, path = Index(output), ann_path(output)
    if sentences is None:
        queries = near_rows(opened, RECALL_QUERIES, RECALL_COSINE)
    else:
        [queries] = _embed_sentences(bundle, backend, sentences).vector_blocks()
    with staged_file(path) as staged, progress("graph", opened.count) as bar:
        seconds = build_ann(opened, staged, settings, advance=bar.advance)
    recall = measure_recall(opened, Index(output, ann=True), queries)
    size, asked = path.stat().st_size / 1e6, "near rows" if sentences is None else "sentences"
    return AnnReport(path, seconds, size, recall, len(queries), asked)


def _tell(update: Update, output: Path) -> None:
    """What a person should know beside the table."""
    from ..index import Index
    from ..index.approximate import ann_path, fits

    if fits(Index(output)) is False:
        note(f"{ann_path(output)} is of the rows before, and search --ann refuses it; make it again with --ann")
    for path, why, kept in update.failed[:FAILURES_SHOWN]:
        state = "its earlier rows stay" if kept else "it is not in the index"
        note(f"not embedded: {os.fsdecode(path)}: {why}; {state}")
    if len(update.failed) > FAILURES_SHOWN:
        note(f"not embedded: {len(update.failed) - FAILURES_SHOWN} more")
    if update.unstamped:
        note(f"not checked: {update.unstamped} files are there, but nothing says when they were embedded")


def _show(update: Update, output: Path, report: AnnReport | None) -> None:
    sentences = update.sources[0].kind == "text"
    columns = ["sentences" if sentences else "clips", "length", "MB"]
    row = [str(update.count), str(update.sources[0].dim), f"{output.stat().st_size / 1e6:.1f}"]
    for name in ("replaced", "deleted", "gone", "changed"):
        if count := getattr(update, name):
            columns.append(f"{'sentences' if sentences else 'files'} {name}")
            row.append(str(count))
    table(str(output), columns, [row])
    if report is not None:
        found = (f"{report.megabytes:.1f}", f"{report.seconds:.1f}", f"{report.recall:.4f}", report.queries)
        table(str(report.path), ("MB", "built in s", "recall@10", report.queries_are), [found])


def _plain(update: Update, output: Path, space: str, report: AnnReport | None) -> dict[str, Any]:
    names = ("count", "replaced", "deleted", "gone", "changed", "unstamped")
    failed = [{"path": os.fsdecode(path), "message": why, "kept": kept} for path, why, kept in update.failed]
    first = update.sources[0]
    return {
        "output": str(output),
        **{name: getattr(update, name) for name in names},
        "dim": first.dim,
        "kind": first.kind,
        "space": space,
        "failed": failed,
        "ann": None if report is None else {**asdict(report), "path": str(report.path)},
    }
