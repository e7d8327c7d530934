"""`vtr-runtime`: info, embed, index, search, build."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any, Literal

import click

from .console import Cli, echo_json, json_option, note, progress, table
from .engines.options import build_options, engine_options, given_options
from .errors import UsageError

if TYPE_CHECKING:
    from .index import Hit, Index
    from .manifest import Manifest
    from .model import EmbeddedClip, Model

# A folder is searched for these; a file that is named itself is always tried.
VIDEO_SUFFIXES = frozenset(
    ".3gp .avi .flv .gif .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .ogv .ts .webm .wmv".split()  # noqa: SIM905
)

bundle_argument = click.argument("bundle", type=click.Path(path_type=Path))
backend_option = click.option("--backend", default="auto", show_default=True, help="Engine that runs the graphs.")
overwrite_option = click.option("--overwrite", is_flag=True, help="Replace the output if it is there.")


@click.group(cls=Cli, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="vtr-runtime")
def main() -> None:
    """Embed and search videos and sentences from a vtr-export bundle."""


@main.command()
@bundle_argument
@json_option
def info(bundle: Path, as_json: bool) -> None:
    """Verify BUNDLE and say what is in it."""
    from .bundle import open_bundle
    from .engines.record import ENGINES, find_engines

    manifest = open_bundle(bundle).manifest
    if as_json:
        echo_json(manifest.model_dump(mode="json"))
        return
    frames, text, sampler = manifest.frames, manifest.text, manifest.sampler
    temporal = manifest.model.get("temporal", {}).get("kind", "?")
    rows = [
        ("model", f"{manifest.name}, temporal head {temporal}, embeddings of length {manifest.dim}"),
        ("frames", f"{frames.count} of {frames.size}x{frames.size}, {frames.sampling} over the clip, {frames.resize}"),
        ("text", f"at most {text.context_length} tokens, cleaning {text.cleaning}"),
        ("sampler", sampler.summary),
        ("second stage", _second_stage(manifest)),
        ("precision", f"{manifest.precision}, graphs in {manifest.graph_precision}, opset {manifest.opset}"),
        ("graphs", ", ".join(manifest.graphs.named())),
        ("engines", ", ".join(record.id for _, record in find_engines(bundle / ENGINES)) or "none"),
        ("space", manifest.space),
        ("variant", manifest.variant),
        ("size", f"{sum(entry.size for entry in manifest.files.values()) / 1e6:.1f} MB, every file's sha256 agrees"),
        ("made by", ", ".join(f"{name} {version}" for name, version in manifest.versions.items())),
    ]
    table(str(bundle), ("", ""), rows)


def _second_stage(manifest: Manifest) -> str:
    if manifest.rerank is None:
        return "none"
    weights = ", with weights of words" if manifest.rerank.textual_attention else ""
    return f"{manifest.rerank.kind}{weights}, joined with weight {manifest.rerank.weight:g}"


@main.command()
@bundle_argument
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Parquet file to write.")
@click.option("--window", type=float, metavar="SECONDS", help="Cut videos into parts, a row each, to find moments.")
@click.option("--stride", type=float, metavar="SECONDS", help="From one part to the next. [default: the window]")
@backend_option
@overwrite_option
@json_option
def embed(
    bundle: Path,
    paths: tuple[Path, ...],
    output: Path,
    window: float | None,
    stride: float | None,
    backend: str,
    overwrite: bool,
    as_json: bool,
) -> int:
    """Embed the videos PATHS (files, or folders searched for videos) into a Parquet file.

    A file from which no frame can be had is named and gets a row without an embedding; the others are done.

    \b
    vtr-runtime embed bundle/ VIDEOS/ -o videos.parquet
    vtr-runtime embed bundle/ match.mp4 -o moments.parquet --window 10 --stride 5"""
    from .embeddings import write_embeddings
    from .model import Clip, load
    from .publish import check_output, staged_file
    from .sampling import Windows

    if window is None and stride is not None:
        raise UsageError("--stride says how far the parts of --window lie apart; give --window too")
    windows = None if window is None else Windows(window, window if stride is None else stride)
    check_output(output, overwrite=overwrite)
    model = load(bundle, backend)
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
        write_embeddings(staged, rows(), dim=model.manifest.dim, space=model.space, variant=model.variant)
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


@main.command()
@bundle_argument
@click.argument("parquet", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Index (.vtri) to write.")
@overwrite_option
@json_option
def index(bundle: Path, parquet: tuple[Path, ...], output: Path, overwrite: bool, as_json: bool) -> None:
    """Make a searchable index of embeddings."""
    from .bundle import open_bundle
    from .index import merge_tables, write_index
    from .publish import check_output, staged_file

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


@main.command()
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
@backend_option
@json_option
def search(
    bundle: Path,
    index_path: Path,
    texts: tuple[str, ...],
    k: int,
    moments: int | None,
    sheet: Path | None,
    backend: str,
    as_json: bool,
) -> None:
    """Find clips in INDEX (.vtri or .parquet) by sentences."""
    from .contact_sheet import contact_sheet
    from .model import load
    from .publish import staged_file

    model = load(bundle, backend)
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

    from .index import Index, check_space, merge_tables, write_index

    if path.suffix == ".parquet":
        with tempfile.TemporaryDirectory() as folder:
            write_index(Path(folder) / "x.vtri", merge_tables([path], model.space))
            return Index(Path(folder) / "x.vtri")
    opened = Index(path)
    check_space(opened, model.space)
    return opened


@main.command()
@bundle_argument
@click.option("--target", required=True, type=click.Choice(["trt", "trt-rtx", "openvino"]), help="Engine to build.")
@click.option(
    "--engine-dir", type=click.Path(path_type=Path), help="Where to put it. [default: the bundle's folder engines]"
)
@click.option(
    "--refit", type=click.Path(path_type=Path), help="Engine folder that takes this bundle's weights instead."
)
@engine_options
@overwrite_option
@json_option
def build(
    bundle: Path,
    target: str,
    engine_dir: Path | None,
    refit: Path | None,
    overwrite: bool,
    as_json: bool,
    **engine: Any,
) -> None:
    """Build engines of BUNDLE's graphs on this machine, without torch.

    \b
    vtr-runtime build bundle/ --target trt                  on the GPU that will run them
    vtr-runtime build bundle/ --target trt-rtx --sm 86,89   without a GPU
    vtr-runtime build bundle/ --target trt --refit OLD      new weights into an engine built with --refittable"""
    from .bundle import open_bundle
    from .engines.openvino_build import build_openvino
    from .engines.record import ENGINES
    from .engines.tensorrt_build import build_tensorrt
    from .engines.tensorrt_refit import refit_engine
    from .targets import TARGETS

    TARGETS[target].check_options(given_options(engine))
    options = build_options(engine)
    opened = open_bundle(bundle)
    folder = engine_dir or bundle / ENGINES
    if refit is not None:
        record = refit_engine(refit, opened, engine_dir=folder, overwrite=overwrite, say=note)
    elif target == "openvino":
        record = build_openvino(opened, engine_dir=folder, overwrite=overwrite, say=note)
    else:
        kind: Literal["trt", "trt-rtx"] = "trt" if target == "trt" else "trt-rtx"
        record = build_tensorrt(opened, kind, options, engine_dir=folder, overwrite=overwrite, say=note)
    if as_json:
        echo_json(record.model_dump(mode="json"))
        return
    rows = [(name, f"{entry.size / 1e6:.1f}") for name, entry in record.files.items()]
    table(f"{folder / record.id} in {record.seconds:.0f} s", ("file", "MB"), rows)
    for name, used in record.precision_used.items():
        click.echo(f"{name}: {used.precision} ({used.source}: {used.counts})")
    click.echo(f"next: vtr-conformance run {bundle}")


def _plain(hit: Hit) -> dict[str, Any]:
    return {**asdict(hit), "path": str(hit.path)}


def _span(hit: Hit) -> str:
    if hit.start is None and hit.end is None:
        return "whole"
    return f"{hit.start or 0:.1f} - {'end' if hit.end is None else f'{hit.end:.1f}'}"


if __name__ == "__main__":
    sys.exit(main())
