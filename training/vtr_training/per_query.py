"""Every query of an evaluation on a line of its own: what to look at when a figure is low."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from vtr_runtime.metrics import QueryResult, per_query
from vtr_runtime.publish import staged_file

from .data.clip import Clip
from .data.split import caption_rows
from .embed import EmbeddedSplit
from .evaluate import relevance
from .rankings import Ranking


def write_per_query(path: Path, split: EmbeddedSplit, rankings: Iterable[Ranking]) -> None:
    """JSON Lines, whole or not at all: for each ranking every caption (t2v), then every clip (v2t)."""
    with staged_file(path) as staged, staged.open("w", encoding="utf-8") as file:
        for ranking in rankings:
            for line in query_lines(split, ranking):
                file.write(json.dumps(line) + "\n")


def query_lines(split: EmbeddedSplit, ranking: Ranking) -> Iterator[dict[str, Any]]:
    """`caption` and `clip` are the query and its best right answer, whichever way; `wrong_*` the best wrong answer,
    None where there is none. `margin` is `score` - `wrong_score`."""
    captions, _ = caption_rows(split.clips)
    clips = [_clip(clip) for clip in split.clips]
    true = relevance(split.owners, len(clips))
    for row, found in enumerate(per_query(ranking.forward, true, tolerance=ranking.tolerance)):
        wrong = None if found.wrong is None else clips[found.wrong]
        pair = {"caption": captions[row], "clip": clips[found.item]}
        yield {"ranking": ranking.name, "direction": "t2v", **pair, **_numbers(found), "wrong_clip": wrong}
    for row, found in enumerate(per_query(ranking.backward, true.T, tolerance=ranking.tolerance)):
        pair = {"caption": captions[found.item], "clip": clips[row]}
        wrong_caption = None if found.wrong is None else captions[found.wrong]
        wrong = None if found.wrong is None else clips[int(split.owners[found.wrong])]
        answer = {"wrong_caption": wrong_caption, "wrong_clip": wrong}
        yield {"ranking": ranking.name, "direction": "v2t", **pair, **_numbers(found), **answer}


def _numbers(found: QueryResult) -> dict[str, Any]:
    return {
        "rank": found.rank,
        "optimistic_rank": found.optimistic_rank,
        "pessimistic_rank": found.pessimistic_rank,
        "score": found.score,
        "wrong_score": found.wrong_score,
        "margin": found.margin,
    }


def _clip(clip: Clip) -> dict[str, Any]:
    part = {"start": clip.start, "end": clip.end}
    return {"video": str(clip.video), **{name: value for name, value in part.items() if value is not None}}
