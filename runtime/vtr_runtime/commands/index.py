"""`vtr-runtime index`"""

from __future__ import annotations

from pathlib import Path

import click

from ..console import echo_json, json_option, table
from .options import bundle_argument, overwrite_option


@click.command()
@bundle_argument
@click.argument("parquet", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Index (.vtri) to write.")
@overwrite_option
@json_option
def index(bundle: Path, parquet: tuple[Path, ...], output: Path, overwrite: bool, as_json: bool) -> None:
    """Make a searchable index of embeddings."""
    from ..bundle import open_bundle
    from ..index import merge_tables, write_index
    from ..publish import check_output, staged_file

    check_output(output, overwrite=overwrite)
    space = open_bundle(bundle).manifest.space
    merged = merge_tables(parquet, space)
    with staged_file(output) as staged:
        write_index(staged, merged)
    count, dim = merged.vectors.shape
    if as_json:
        echo_json({"output": str(output), "count": count, "dim": dim, "space": space})
    else:
        table(str(output), ("clips", "length", "MB"), [(count, dim, f"{output.stat().st_size / 1e6:.1f}")])
        click.echo(f'next: vtr-runtime search {bundle} {output} "a sentence" -k 10')
