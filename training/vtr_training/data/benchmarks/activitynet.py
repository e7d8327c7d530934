"""ActivityNet Captions, as paragraphs: all sentences of a video are one caption of the whole video, and their
timestamps are not used. Ids are `v_<YouTube id>`; files are named so, or by the YouTube id alone."""

from __future__ import annotations

from collections.abc import Iterator

from ..texts import Layout, read_json
from ..tree import Tree
from .entry import Entry, need, paragraph

FILES = {"train": ("train.json",), "test": ("val_1.json", "val.json")}  # the second is what 2D-TAN calls it


class _Video(Layout):
    sentences: list[str]


def read(tree: Tree, split: str) -> Iterator[Entry]:
    path = need(tree, *FILES[split])
    for name, video in read_json(path, dict[str, _Video]).items():
        bare = name.removeprefix("v_")
        yield Entry(name, paragraph(video.sentences), f"{path}: {name}", names=(name, bare), source=bare)
