"""TGIF: URLs in lists and, each with a caption, in a TSV file in which a URL may stand several times. The id is the
name of the GIF without its suffix; the files may be GIFs, or videos made of them."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

from vtr_runtime.errors import DataError

from ..texts import read_lines
from ..tree import Tree, stem_of
from .entry import Entry, need, read_ids


def read(tree: Tree, split: str) -> Iterator[Entry]:
    path = need(tree, "tgif-v1.0.tsv")
    captions: dict[str, list[str]] = {}
    for line in read_lines(path):
        url, tab, caption = line.text.partition("\t")
        if not tab:
            raise DataError(f"{path}:{line.number}: no tab between a URL and its caption; mend this line")
        captions.setdefault(url.strip(), []).append(caption)
    for listed in read_ids(need(tree, f"{split}.txt")):
        name = stem_of(urlsplit(listed.id).path.rsplit("/", 1)[-1])
        yield Entry(name, tuple(captions.get(listed.id, ())), listed.place)
