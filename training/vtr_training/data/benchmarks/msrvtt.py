"""MSR-VTT: captions in one JSON file, splits in lists of ids, the 1k-A test with one caption a video in a CSV file.

`start time` and `end time` are those within the YouTube video that a clip was cut from: the files are cut already."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from vtr_runtime.errors import DataError

from ..texts import Layout, read_csv, read_json
from ..tree import Tree
from .entry import Entry, need

OWN_SPLITS = {"train": "train", "val": "validate", "test": "test"}  # as the JSON file calls them
JSFUSION = "MSRVTT_JSFUSION_test.csv"


class _Video(Layout):
    video_id: str
    split: str
    url: str = ""


class _Sentence(Layout):
    caption: str
    video_id: str


class _Data(Layout):
    videos: list[_Video]
    sentences: list[_Sentence]


def read_9k(tree: Tree, split: str) -> Iterator[Entry]:
    return read_1ka(tree, split) if split == "test" else _listed(tree, need(tree, "MSRVTT_train.9k.csv"))


def read_7k(tree: Tree, split: str) -> Iterator[Entry]:
    return read_1ka(tree, split) if split == "test" else _listed(tree, need(tree, "MSRVTT_train.7k.csv"))


def read_1ka(tree: Tree, split: str) -> Iterator[Entry]:  # noqa: ARG001  # it has the one split
    path = need(tree, JSFUSION)
    for row in read_csv(path, required=("video_id", "sentence")):
        yield Entry(row.fields["video_id"].strip(), (row.fields["sentence"],), f"{path}:{row.line}")


def read_full(tree: Tree, split: str) -> Iterator[Entry]:
    ids = tree.find(f"MSRVTT_{split}.full.csv")
    return _listed(tree, ids) if ids else _by_own_field(tree, OWN_SPLITS[split])


def _listed(tree: Tree, ids: Path) -> Iterator[Entry]:
    """The videos of a list, in its order."""
    data = _data(tree)
    sources = {video.video_id: video.url or None for one in data.values() for video in one.videos}
    captions = _captions(data.values())
    for row in read_csv(ids, required=("video_id",)):
        name = row.fields["video_id"].strip()
        yield Entry(name, tuple(captions.get(name, ())), f"{ids}:{row.line}", source=sources.get(name))


def _by_own_field(tree: Tree, split: str) -> Iterator[Entry]:
    """The videos whose field `split` says so."""
    data = _data(tree)
    captions = _captions(data.values())
    for path, one in data.items():
        for number, video in enumerate(one.videos):
            if video.split == split:
                said = tuple(captions.get(video.video_id, ()))
                yield Entry(video.video_id, said, f"{path}: videos[{number}]", source=video.url or None)


def _captions(data: Iterable[_Data]) -> dict[str, list[str]]:
    captions: dict[str, list[str]] = {}
    for one in data:
        for sentence in one.sentences:
            captions.setdefault(sentence.video_id, []).append(sentence.caption)
    return captions


def _data(tree: Tree) -> Mapping[Path, _Data]:
    """One file in the retrieval papers' layout, or the two of the original release."""
    names = ("MSRVTT_data.json", "train_val_videodatainfo.json", "test_videodatainfo.json")
    whole, *parts = (tree.find(name) for name in names)
    paths = [whole] if whole else [path for path in parts if path]
    if not paths:
        raise DataError(f"{' or '.join(names)} is not there below {tree.root}; fetch it (docs/data-sets.md says where)")
    return {path: read_json(path, _Data) for path in paths}
