"""LSMDC 2016: six columns with tabs between them and no header; a clip may have several lines in training. Its id holds
the times within the film. A line may stand in quotes as a whole."""

from __future__ import annotations

from collections.abc import Iterator

from vtr_runtime.errors import DataError

from ..texts import Line, read_lines
from ..tree import Tree
from .entry import Entry, need

FILES = {
    "train": "LSMDC16_annos_training.csv",
    "val": "LSMDC16_annos_val.csv",
    "test": "LSMDC16_challenge_1000_publictect.csv",
}
COLUMNS = ("CLIP_ID", "START_ALIGNED", "END_ALIGNED", "START_EXTRACTED", "END_EXTRACTED", "SENTENCE")


def read(tree: Tree, split: str) -> Iterator[Entry]:
    path = need(tree, FILES[split])
    captions: dict[str, list[str]] = {}
    places: dict[str, str] = {}
    for line in read_lines(path):
        fields = _unquoted(line).split("\t")
        if len(fields) != len(COLUMNS):
            raise DataError(
                f"{path}:{line.number}: {len(fields)} columns with tabs between them, not {len(COLUMNS)} "
                f"({', '.join(COLUMNS)}); mend this line"
            )
        clip = fields[0].strip()
        captions.setdefault(clip, []).append(fields[-1])
        places.setdefault(clip, f"{path}:{line.number}")
    for clip, said in captions.items():
        film = clip.split(".", 1)[0].rpartition("_")[0]  # before the hour
        yield Entry(clip, tuple(said), places[clip], source=film or None)


def _unquoted(line: Line) -> str:
    text = line.text
    if text.startswith('"'):
        text = text[1:].removesuffix('"').replace('""', '"')
    return text
