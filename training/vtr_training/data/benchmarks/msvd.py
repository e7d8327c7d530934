"""MSVD: ids `<YouTube id>_<start>_<end>` in lists, captions as lists of words in a pickle file (CLIP4Clip) or as
strings in a JSON file (X-Pool). The files are cut already; ids may begin with a dash."""

from __future__ import annotations

from collections.abc import Iterator

from ..texts import read_json, read_pickle
from ..tree import Tree
from .entry import Entry, need, read_ids

YOUTUBE_ID = 11  # letters


def read(tree: Tree, split: str) -> Iterator[Entry]:
    path = need(tree, "captions_msvd.json", "raw-captions.pkl")
    if path.suffix == ".json":
        captions = read_json(path, dict[str, list[str]])
    else:
        words = read_pickle(path, dict[str, list[list[str]]])
        captions = {name: [" ".join(caption) for caption in said] for name, said in words.items()}
    for listed in read_ids(need(tree, f"{split}_list.txt")):
        said = tuple(captions.get(listed.id, ()))
        yield Entry(listed.id, said, listed.place, source=listed.id[:YOUTUBE_ID])
