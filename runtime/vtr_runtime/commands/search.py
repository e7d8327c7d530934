"""`vtr-runtime search`"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any

import click

from ..console import echo_json, json_option, note, table
from .options import BackendChoice, backend_options, bundle_argument

if TYPE_CHECKING:
    from ..index import Hit, Index
    from ..model import Model


@click.command()
@bundle_argument
@click.argument("index_path", metavar="INDEX", type=click.Path(path_type=Path))
@click.argument("texts", metavar="TEXT...", nargs=-1, required=True)
@click.option(
    "-k", default=10, show_default=True, type=click.IntRange(1), help="How many clips to show for a sentence."
)
@click.option(
    "--moments", type=click.IntRange(1), metavar="N", help="A file once, with its N best parts (of embed --window)."
)
@click.option("--sheet", type=click.Path(path_type=Path), help="Also draw the results into this PNG file.")
@backend_options
@json_option
def search(
    bundle: Path,
    index_path: Path,
    texts: tuple[str, ...],
    k: int,
    moments: int | None,
    sheet: Path | None,
    backend: BackendChoice,
    as_json: bool,
) -> None:
    """Find clips in INDEX (.vtri or .parquet) by sentences."""
    from ..contact_sheet import contact_sheet
    from ..model import load
    from ..publish import staged_file

    model = load(bundle, **backend)
    opened, queries = _open_index(model, index_path), model.encode_texts(texts)
    if moments is None:
        grouped = [[[hit] for hit in hits] for hits in opened.search(queries, k)]
    else:
        grouped = opened.search_files(queries, k, moments)
    found = [[hit for file in files for hit in file] for files in grouped]
    if sheet is not None:
        with staged_file(sheet) as staged:
            contact_sheet(texts, found).save(staged, format="PNG")
    if as_json:
        echo_json([{"query": text, "hits": [_plain(hit) for hit in hits]} for text, hits in zip(texts, found)])  # noqa: B905
        return
    for text, files in zip(texts, grouped, strict=True):
        rows = [
            (rank if place == 0 else "", f"{hit.score:.4f}", hit.path if place == 0 else "", _span(hit))
            for rank, hits in enumerate(files, 1)
            for place, hit in enumerate(hits)
        ]
        table(f"“{shorten(text, 100, placeholder=' …')}”", ("", "score", "clip", "seconds"), rows)
    if sheet is not None:
        note(f"pictures: {sheet}")


def _open_index(model: Model, path: Path) -> Index:
    import tempfile

    from ..index import Index, check_space, merge_tables, write_index

    if path.suffix == ".parquet":
        with tempfile.TemporaryDirectory() as folder:
            write_index(Path(folder) / "x.vtri", merge_tables([path], model.space))
            return Index(Path(folder) / "x.vtri")
    opened = Index(path)
    check_space(opened, model.space)
    return opened


def _plain(hit: Hit) -> dict[str, Any]:
    return {**asdict(hit), "path": str(hit.path)}


def _span(hit: Hit) -> str:
    if hit.start is None and hit.end is None:
        return "whole"
    return f"{hit.start or 0:.1f} - {'end' if hit.end is None else f'{hit.end:.1f}'}"
