"""Charades: a CSV file with a row a video. The one caption is the `script`, which the actors were given, as in ECLIPSE;
`descriptions`, which viewers wrote, and the times of `actions` are not used."""

from __future__ import annotations

from collections.abc import Iterator

from ..texts import read_csv
from ..tree import Tree
from .entry import Entry, need


def read(tree: Tree, split: str) -> Iterator[Entry]:
    path = need(tree, f"Charades_v1_{split}.csv")
    for row in read_csv(path, required=("id", "script")):
        yield Entry(row.fields["id"].strip(), (row.fields["script"],), f"{path}:{row.line}")
