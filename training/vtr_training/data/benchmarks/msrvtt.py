"""MSR-VTT: captions in one JSON file, splits in lists of ids, the 1k-A test with one caption a video in a CSV file.

`start time` and `end time` are those within the YouTube video that a clip was cut from: the files are cut already."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from vtr_runtime.errors import DataError

from ..texts import Layout, read_csv, read_json
from ..tree import Tree
from .entry import Entry, ListedId, need

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
    return read_1ka(tree, split) if split == "test" else _listed(tree, _csv_ids(need(tree, "MSRVTT_train.9k.csv")))


def read_7k(tree: Tree, split: str) -> Iterator[Entry]:
    return read_1ka(tree, split) if split == "test" else _listed(tree, _csv_ids(need(tree, "MSRVTT_train.7k.csv")))


def read_1ka(tree: Tree, split: str) -> Iterator[Entry]:  # noqa: ARG001  # it has the one split
    path = need(tree, JSFUSION)
    for row in read_csv(path, required=("video_id", "sentence")):
        yield Entry(row.fields["video_id"].strip(), (row.fields["sentence"],), f"{path}:{row.line}")


def read_full(tree: Tree, split: str) -> Iterator[Entry]:
    ids = tree.find(f"MSRVTT_{split}.full.csv")
    return _listed(tree, _csv_ids(ids)) if ids else _listed(tree, _own_ids(tree, split))


def _csv_ids(path: Path) -> Iterator[ListedId]:
    for row in read_csv(path, required=("video_id",)):
        yield ListedId(row.fields["video_id"].strip(), f"{path}:{row.line}")


def _own_ids(tree: Tree, split: str) -> Iterator[ListedId]:
    for path, data in _data(tree).items():
        for number, video in enumerate(data.videos):
            if video.split == OWN_SPLITS[split]:
                yield ListedId(video.video_id, f"{path}: videos[{number}]")


def _listed(tree: Tree, ids: Iterator[ListedId]) -> Iterator[Entry]:
    captions: dict[str, list[str]] = {}
    sources: dict[str, str] = {}
    for data in _data(tree).values():
        for sentence in data.sentences:
            captions.setdefault(sentence.video_id, []).append(sentence.caption)
        sources.update({video.video_id: video.url for video in data.videos})
    for listed in ids:
        source = sources.get(listed.id) or None
        yield Entry(listed.id, tuple(captions.get(listed.id, ())), listed.place, source=source)


def _data(tree: Tree) -> Mapping[Path, _Data]:
    """One file in the retrieval papers' layout, or the two of the original release."""
    names = ("MSRVTT_data.json", "train_val_videodatainfo.json", "test_videodatainfo.json")
    whole, *parts = (tree.find(name) for name in names)
    paths = [whole] if whole else [path for path in parts if path]
    if not paths:
        raise DataError(f"{' or '.join(names)} is not there below {tree.root}; fetch it (docs/data-sets.md says where)")
    return {path: read_json(path, _Data) for path in paths}
