"""`vtr-runtime search`"""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any

import click

from ..console import echo_json, json_option, note, table
from ..errors import MediaError, UsageError
from .options import BackendChoice, backend_options, bundle_argument

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ..clips import Clip
    from ..index import Hit, Index
    from ..model import Model

Files = list[list["Hit"]]
"""The results of one query: hits by file, or each hit alone."""

TOP = 100
_CUT = re.compile(r"(?P<path>.+):(?P<start>\d+(?:\.\d+)?)?-(?P<end>\d+(?:\.\d+)?)?")


@click.command()
@bundle_argument
@click.argument("index_path", metavar="INDEX", type=click.Path(path_type=Path))
@click.argument("texts", metavar="[TEXT]...", nargs=-1)
@click.option("--video", "videos", multiple=True, metavar="FILE[:START-END]", help="Find what is like this video.")
@click.option("--exclude-self", is_flag=True, help="Leave out the file of --video itself.")
@click.option("-k", type=click.IntRange(1), help="How many results a query. [default: 10]")
@click.option(
    "--moments", type=click.IntRange(1), metavar="N", help="A file once, with its N best parts (of embed --window)."
)
@click.option("--overlapping", is_flag=True, help="With --moments: also parts that overlap a better one.")
@click.option("--ann", is_flag=True, help="Search the approximate index that index --ann wrote.")
@click.option(
    "--expansion-search",
    "expansion",
    type=click.IntRange(1),
    help="Of --ann: candidates, if not those of its building.",
)
@click.option(
    "--rerank",
    is_flag=False,
    flag_value=TOP,
    type=click.IntRange(1),
    metavar="[K]",
    help=f"Order the best K by the bundle's second stage. [K: {TOP}]",
)
@click.option("--sheet", type=click.Path(path_type=Path), help="Also draw the results into this PNG file.")
@backend_options
@json_option
def search(
    bundle: Path,
    index_path: Path,
    texts: tuple[str, ...],
    videos: tuple[str, ...],
    exclude_self: bool,
    k: int | None,
    moments: int | None,
    overlapping: bool,
    ann: bool,
    expansion: int | None,
    rerank: int | None,
    sheet: Path | None,
    backend: BackendChoice,
    as_json: bool,
) -> None:
    """Find clips in INDEX (.vtri or .parquet) by sentences or by videos, or sentences in an index of sentences.

    \b
    vtr-runtime search bundle/ videos.vtri "a dog runs" "a cat sleeps" -k 5 --sheet results.png
    vtr-runtime search bundle/ videos.vtri --video dog.mp4:10-20 --exclude-self
    vtr-runtime search bundle/ captions.vtri --video dog.mp4"""
    from ..model import load

    k = k or min(10, rerank or TOP)
    _check_use(texts, videos, k, rerank, moments, overlapping=overlapping, exclude_self=exclude_self)
    if expansion is not None and not ann:
        raise UsageError("--expansion-search is about the approximate index; give --ann too")
    model = load(bundle, **backend)
    opened = _open_index(model, index_path, ann=ann, expansion=expansion, frames=rerank is not None)
    if sheet is not None and opened.kind == "text":
        raise UsageError(f"{index_path} holds sentences, of which there are no pictures; leave out --sheet")
    if rerank is not None:
        found = _find_again(model, opened, texts, k, moments, rerank, overlapping)
    else:
        clips = [parse_clip(video) for video in videos]
        queries = _embed(model, clips) if clips else model.encode_texts(texts)
        if exclude_self:
            pairs = zip(queries, clips, strict=True)
            found = [_find_others(opened, query[None], k, moments, overlapping, clip.path) for query, clip in pairs]
        else:
            found = _find(opened, queries, k, moments, overlapping)
    if sheet is not None:
        _draw(sheet, texts or videos, found)
    if as_json:
        hits = [[_plain(hit) for file in files for hit in file] for files in found]
        echo_json([{"query": query, "hits": some} for query, some in zip(texts or videos, hits, strict=True)])
        return
    for query, files in zip(texts or videos, found, strict=True):
        _show(query, files, sentences=opened.kind == "text")
    if sheet is not None:
        note(f"pictures: {sheet}")


def parse_clip(given: str) -> Clip:
    """FILE or FILE:START-END in seconds, of which either may be left out; a file of just that name comes first."""
    from ..clips import Clip

    cut = _CUT.fullmatch(given)
    if cut is None or Path(given).exists():
        return Clip(Path(given))
    start, end = (None if cut[name] is None else float(cut[name]) for name in ("start", "end"))
    return Clip(Path(cut["path"]), start, end)


def _check_use(
    texts: tuple[str, ...],
    videos: tuple[str, ...],
    k: int,
    rerank: int | None,
    moments: int | None,
    *,
    overlapping: bool,
    exclude_self: bool,
) -> None:
    if bool(texts) == bool(videos):
        raise UsageError("search by sentences or by --video FILE, one or the other; one of the two is needed")
    if exclude_self and not videos:
        raise UsageError("--exclude-self leaves out the file of --video; give --video too, or leave it out")
    if overlapping and moments is None:
        raise UsageError("--overlapping is about the parts of --moments; give --moments too")
    if rerank is not None and videos:
        raise UsageError("--rerank scores a sentence's words; it cannot be used with --video")
    if rerank is not None and k > rerank:
        raise UsageError(f"-k {k} shows more than the {rerank} that are scored again; give --rerank {k}")


def _open_index(model: Model, path: Path, *, ann: bool, expansion: int | None, frames: bool) -> Index:
    import tempfile

    from ..index import Index, check_space, open_rows, plan_update, write_update

    source = open_rows(path)
    if not isinstance(source, Index):
        if ann:
            raise UsageError(f"{path} is no index; make one: vtr-runtime index BUNDLE {path} -o X.vtri --ann")
        with tempfile.TemporaryDirectory() as folder:
            write_update(Path(folder) / "x.vtri", plan_update([source], space=model.space), frames=frames)
            return Index(Path(folder) / "x.vtri")
    check_space(source, model.space)
    return Index(path, ann=True, expansion=expansion) if ann else source


def _embed(model: Model, clips: list[Clip]) -> NDArray[np.float32]:
    import numpy as np

    rows = []
    for item in model.embed_clips(clips):
        if item.embedding is None:
            raise MediaError(item.message)
        if item.status == "warning":
            note(f"warning: {item.message}")
        rows.append(item.embedding)
    return np.stack(rows)


def _find(index: Index, queries: NDArray[np.float32], k: int, moments: int | None, overlapping: bool) -> list[Files]:
    """The first k results of each query [Q, D]."""
    if moments is not None:
        return index.search_files(queries, k, moments, overlapping=overlapping)
    return [[[hit] for hit in hits] for hits in index.search(queries, k)]


def _find_others(
    index: Index, query: NDArray[np.float32], k: int, moments: int | None, overlapping: bool, own: Path
) -> Files:
    """The first k results of a query [1, D] that are not of its own file, which may have any number of parts."""
    asked = k
    while True:
        asked *= 4
        [files] = _find(index, query, asked, moments, overlapping)
        others = [hits for hits in files if not _same_file(hits[0].path, own)]
        if len(others) >= k or asked >= index.count:
            return others[:k]


def _same_file(one: Path, other: Path) -> bool:
    return one.absolute() == other.absolute()


def _find_again(
    model: Model,
    index: Index,
    texts: tuple[str, ...],
    k: int,
    moments: int | None,
    top: int,
    overlapping: bool,
) -> list[Files]:
    """The second stage's results, by file where `moments` are wanted."""
    from ..index import group_by_file
    from ..reranking import search_again, serving_tagger

    if model.manifest.rerank is not None and model.manifest.rerank.textual_attention:
        tagger, why = serving_tagger()
        note(f"parts of speech: by {tagger.name} ({why})")
    found = search_again(model, index, list(texts), top)
    if moments is None:
        return [[[hit] for hit in hits[:k]] for hits in found]
    return [group_by_file(hits, k, moments, overlapping=overlapping) for hits in found]


def _draw(sheet: Path, queries: tuple[str, ...], found: list[Files]) -> None:
    from ..contact_sheet import contact_sheet
    from ..publish import staged_file

    with staged_file(sheet) as staged:
        flat = [[hit for file in files for hit in file] for files in found]
        contact_sheet(queries, flat).save(staged, format="PNG")


def _show(query: str, files: Files, *, sentences: bool) -> None:
    title = f"“{shorten(query, 100, placeholder=' …')}”"
    if sentences:
        table(title, ("", "score", "sentence"), [(n, f"{hit.score:.4f}", hit.text) for n, [hit] in enumerate(files, 1)])
        return
    rows = [
        (rank if place == 0 else "", f"{hit.score:.4f}", hit.path if place == 0 else "", hit.seconds)
        for rank, hits in enumerate(files, 1)
        for place, hit in enumerate(hits)
    ]
    table(title, ("", "score", "clip", "seconds"), rows)


def _plain(hit: Hit) -> dict[str, Any]:
    if hit.text is not None:
        return {"id": hit.id, "score": hit.score, "text": hit.text}
    found = {**asdict(hit), "path": str(hit.path)}
    del found["text"]
    return found
