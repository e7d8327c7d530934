"""What must not matter: the batch, the slot and the order of a row, padding, and what is masked.

A host is held to itself here, so no reference is needed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vtr_runtime.errors import VtrError
from vtr_runtime.manifest import Manifest, TextSpec

from .corners import CANDIDATES, CLIPS, draw_clips, draw_query, draw_sentence, run_rows
from .hosts.base import Arrays, Host
from .judge import judge, not_run, raised
from .results import Result

# Clips that are also run alone: all frames, every second one, and few.
ALONE = (0, 3, 5)


class Same(NamedTuple):
    """Two outputs that ought to be one."""

    case: str
    want: NDArray[np.float32]
    got: NDArray[np.float32]


def check_invariance(host: Host, manifest: Manifest, batch: int) -> Iterator[Result]:
    """One result a graph and rule. `batch` is the largest that the graphs are run with."""
    checks = {"video": _check_video, "text": _check_text}
    if manifest.graphs.rerank is not None:
        checks["rerank"] = _check_rerank
    for graph, check in checks.items():
        if (why := host.lacks(graph)) is not None:
            yield not_run(host, "invariance", graph, why)
            continue
        try:
            for same in check(host, manifest, batch):
                case = f"{graph}, {same.case}"
                yield judge(host, "invariance", case, {"": same.want}, {"": same.got})
        except VtrError as error:
            yield raised(host, "invariance", graph, error)


def _check_video(host: Host, manifest: Manifest, batch: int) -> Iterator[Same]:
    clips = draw_clips(manifest.frames)
    together = _embed(host, "video", clips, batch)
    alone = [_embed(host, "video", _rows(clips, [row]), batch) for row in ALONE]
    yield Same("a clip alone", together[list(ALONE)], np.concatenate(alone))
    yield from _slots(host, "video", clips, together, batch)
    masked = [row for row in range(CLIPS) if not clips["frame_mask"][row].all()][:3]
    if masked:  # a bundle of one frame has none
        noise = np.random.default_rng(3).integers(0, 256, clips["frames"][masked].shape, dtype=np.uint8)
        seen = clips["frame_mask"][masked][:, :, None, None, None]
        changed = {**_rows(clips, masked), "frames": np.where(seen, clips["frames"][masked], noise)}
        yield Same("pixels of masked frames", together[masked], _embed(host, "video", changed, batch))


def _check_text(host: Host, manifest: Manifest, batch: int) -> Iterator[Same]:
    spec = manifest.text
    generator = np.random.default_rng(4)
    ends = sorted({1, 2, 3, 9, spec.context_length // 2, spec.context_length - 2} & set(range(1, spec.context_length)))
    texts: Arrays = {"input_ids": np.stack([draw_sentence(generator, spec, end) for end in ends])}
    together = _embed(host, "text", texts, batch)
    alone = [_embed(host, "text", _rows(texts, [row]), batch) for row in range(len(ends))]
    yield Same("a sentence alone", together, np.concatenate(alone))
    cut = [{"input_ids": texts["input_ids"][[row], : end + 1]} for row, end in enumerate(ends)]
    yield Same("a sentence cut behind its end", together, np.concatenate([_embed(host, "text", c, batch) for c in cut]))
    yield from _slots(host, "text", texts, together, batch)
    behind = {"input_ids": _fill_behind(generator, texts["input_ids"], ends, spec)}
    yield Same("tokens behind the end", together, _embed(host, "text", behind, batch))


def _check_rerank(host: Host, manifest: Manifest, batch: int) -> Iterator[Same]:  # noqa: ARG001
    query = draw_query(np.random.default_rng(5), manifest, 16, CANDIDATES)
    candidates = ("frame_embeddings", "frame_mask")

    def score(rows: list[int], **changed: NDArray[np.float32]) -> NDArray[np.float32]:
        feed = {**query, **changed}
        scores: NDArray[np.float32] = host.run("rerank", {**feed, **{n: feed[n][rows] for n in candidates}})["scores"]
        return scores

    everyone = list(range(CANDIDATES))
    together = score(everyone)
    yield Same("a candidate alone", together, np.concatenate([score([row]) for row in everyone]))
    yield Same("the order reversed", together[::-1], score(everyone[::-1]))
    yield Same("a candidate three times", together[[0, 0, 0]], score([0, 0, 0]))
    yield Same("masked frames", together, score(everyone, frame_embeddings=_spoil(query, "frame")))
    if "word_embeddings" in query:
        yield Same("masked words", together, score(everyone, word_embeddings=_spoil(query, "word")))


def _slots(host: Host, graph: str, feed: Arrays, together: NDArray[np.float32], batch: int) -> Iterator[Same]:
    """Every row in another slot, and one row in all of them."""
    backwards = list(range(len(together)))[::-1]
    yield Same("the order reversed", together[backwards], _embed(host, graph, _rows(feed, backwards), batch))
    yield Same("a row three times", together[[0, 0, 0]], _embed(host, graph, _rows(feed, [0, 0, 0]), batch))


def _fill_behind(
    generator: np.random.Generator, ids: NDArray[np.int32], ends: list[int], spec: TextSpec
) -> NDArray[np.int32]:
    """Any ids behind the first end token, further end and start tokens among them."""
    place = np.arange(ids.shape[1])
    junk = generator.integers(0, spec.vocab_size, ids.shape).astype(np.int32)
    junk[:, ::3], junk[:, 1::7] = spec.end_id, spec.start_id
    return np.where(place > np.array(ends)[:, None], junk, ids)


def _spoil(feed: Arrays, kind: str) -> NDArray[np.float32]:
    """The embeddings of `frame` or `word` with the query's own where they are masked: it would win every maximum."""
    return np.where(feed[f"{kind}_mask"][..., None], feed[f"{kind}_embeddings"], feed["embedding"])


def _rows(feed: Arrays, rows: list[int]) -> Arrays:
    return {name: array[rows] for name, array in feed.items()}


def _embed(host: Host, graph: str, feed: Arrays, batch: int) -> NDArray[np.float32]:
    return run_rows(host, graph, feed, batch)["embedding"]
