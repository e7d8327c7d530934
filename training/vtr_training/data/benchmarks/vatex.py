"""VATEX in English: ids `<YouTube id>_<start>_<end>` in lists; captions in the data set's own files or in CLIP2Video's
one. HGR's val and test are two halves of the data set's own validation split, whose captions are public."""

from __future__ import annotations

from collections.abc import Iterator

from ..texts import Layout, read_json
from ..tree import Tree
from .entry import Entry, need, read_ids
from .msvd import YOUTUBE_ID

WHOLE = "vatex_data.json"
PARTS = {"train": "vatex_training_v1.0.json", "val": "vatex_validation_v1.0.json", "test": "vatex_validation_v1.0.json"}


class _Captions(Layout):
    enCap: list[str]  # noqa: N815  # as in the file


class _Video(_Captions):
    videoID: str  # noqa: N815


def read(tree: Tree, split: str) -> Iterator[Entry]:
    path = need(tree, WHOLE, PARTS[split])
    captions: dict[str, list[str]] = {}
    if path.name == WHOLE:
        captions = {name: video.enCap for name, video in read_json(path, dict[str, _Captions]).items()}
    else:
        for video in read_json(path, list[_Video]):
            captions.setdefault(video.videoID, []).extend(video.enCap)
    for listed in read_ids(need(tree, f"{split}_list.txt")):
        said = tuple(captions.get(listed.id, ()))
        yield Entry(listed.id, said, listed.place, source=listed.id[:YOUTUBE_ID])
