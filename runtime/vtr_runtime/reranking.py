"""The second stage: a sentence's best videos scored again by its words and their frames."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .backends.base import NO_SECOND_STAGE
from .errors import ConfigError, UsageError
from .parts_of_speech import Tagger, find_tagger
from .rescoring import second_stage
from .word_weights import word_weights

if TYPE_CHECKING:
    from .index import Hit, Index
    from .model import Model

CANDIDATES_AT_ONCE = 32
"""What engines are built for by default, and enough to keep a CPU busy; a score is of its own pair alone."""


def score_again(
    model: Model, text: str, frame_embeddings: NDArray[np.float32], weights: NDArray[np.float32] | None
) -> NDArray[np.float32]:
    """See `Model.rerank`."""
    manifest = model.manifest
    graph = manifest.graphs.rerank
    if graph is None:
        raise UsageError(NO_SECOND_STAGE)
    frames = np.asarray(frame_embeddings, np.float32)
    if frames.ndim != 3 or frames.shape[1:] != (manifest.frames.count, manifest.dim):
        raise UsageError(
            f"frame embeddings must be [K, {manifest.frames.count}, {manifest.dim}], not {list(frames.shape)}"
        )
    mask = (frames != 0).any(axis=2)
    if not mask.any(axis=1).all():
        raise UsageError("a video has no frame that is not masked; leave such videos out")
    given = {**_text_side(model, text, weights), "frame_embeddings": frames, "frame_mask": mask}
    feed = {tensor.name: given[tensor.name] for tensor in graph.inputs}
    parts = [np.zeros(0, np.float32)]
    for start in range(0, len(frames), CANDIDATES_AT_ONCE):
        some = {name: feed[name][start : start + CANDIDATES_AT_ONCE] for name in ("frame_embeddings", "frame_mask")}
        parts.append(model.backend.rerank({**feed, **some}))
    return np.concatenate(parts)


def search_again(model: Model, index: Index, texts: list[str], top: int) -> list[list[Hit]]:
    """For each sentence the first stage's best `top` rows of an index, ordered by first + weight * second.

    UsageError where the bundle has no second stage or the index no frames' embeddings."""
    spec = model.manifest.rerank
    if spec is None:
        raise UsageError(NO_SECOND_STAGE)
    found = []
    for text, (first, rows) in zip(texts, index.search_rows(model.encode_texts(texts), top), strict=True):
        second = model.rerank(text, index.frames_of(rows))
        total = first
        if len(rows):
            [total] = second_stage(first[None], second[None], np.arange(len(rows))[None], spec.weight)
        order = np.argsort(-total, kind="stable")
        found.append(index.hits(rows[order], total[order]))
    return found


@cache
def serving_tagger() -> tuple[Tagger, str]:
    """Finds the words that matter, as training did; and why it is the one. ConfigError where none is installed."""
    try:
        return find_tagger()
    except ConfigError as error:
        raise ConfigError(
            f"this bundle's second stage weighs words by their parts of speech, and no tagger is here ({error}); "
            "pip install 'vtr-runtime[rerank]'"
        ) from error


def _text_side(model: Model, text: str, weights: NDArray[np.float32] | None) -> dict[str, NDArray[Any]]:
    """What the graph reads of a sentence."""
    assert model.manifest.rerank is not None
    ids = model.tokenizer.trim(model.tokenize([text]))
    given: dict[str, NDArray[Any]] = {name: rows[0] for name, rows in model.backend.text(ids).items()}
    if not model.manifest.rerank.textual_attention:
        return given
    if weights is None:
        tagger, _ = serving_tagger()
        weights = word_weights([text], ids, model.tokenizer, tagger)[0].astype(np.float32)
    if weights.shape[0] < ids.shape[1]:
        raise UsageError(f"{weights.shape[0]} word weights were given for {ids.shape[1]} tokens; give one a token")
    return {**given, "word_weights": np.ascontiguousarray(weights[: ids.shape[1]], np.float32)}
