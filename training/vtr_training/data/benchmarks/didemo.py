"""DiDeMo, as paragraphs: all descriptions of a video are one caption, and the moments that they describe (`times`, in
chunks of five seconds, one pair for each annotator) are not used. Only the videos of the lists count.

Ids are the file names of the download: they hold '@', and some end in a dot behind which the suffix is missing."""

from __future__ import annotations

from collections.abc import Iterator

from ..texts import Layout, read_csv, read_json
from ..tree import Tree
from .entry import Entry, need, paragraph, read_ids

SECONDS = 31.0
"""Longer videos were cut to 30 s for the annotators; CLIP4Clip and those after it read 31."""


class _Item(Layout):
    video: str
    description: str


def read(tree: Tree, split: str) -> Iterator[Entry]:
    said: dict[str, list[str]] = {}
    for item in read_json(need(tree, f"{split}_data.json"), list[_Item]):
        said.setdefault(item.video, []).append(item.description)
    for listed in read_ids(need(tree, f"{split}_list.txt")):
        yield Entry(listed.id, paragraph(said.get(listed.id, ())), listed.place, end=SECONDS)


def read_tmass(tree: Tree, split: str) -> Iterator[Entry]:
    """T-MASS's lists: a paragraph a row, which may hold line breaks, and a path on their machine."""
    path = need(tree, f"didemo_{split}_label.csv")
    for row in read_csv(path, required=("video_path", "text")):
        name = row.fields["video_path"].rsplit("/", 1)[-1]
        text = paragraph(row.fields["text"].split())
        yield Entry(name, text, f"{path}:{row.line}", end=SECONDS)
