"""How much each token of a caption counts in DMAE's token-wise score (textual attention, arXiv 2309.11082)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import tee

import numpy as np
from numpy.typing import NDArray

from .errors import DataError
from .manifest import TextSpec
from .parts_of_speech import Tagger
from .text import Ids, Span, Tokenizer, Tokens, validate_ids

Weights = NDArray[np.uint8]

WEIGHTS_VERSION = 1  # raise when words are chosen or weighed in another way


def word_weights(
    captions: Sequence[str],
    ids: Ids,
    tokenizer: Tokenizer,
    tagger: Tagger,
    *,
    advance: Callable[[], None] = lambda: None,
) -> Weights:
    """uint8 [M, L] for `ids`, int32 [M, L], of M captions: 2 for every token of an important word, 1 for other tokens,
    and 0 outside the text tower's word mask, which holds the tokens between start and the first end, or that end alone
    where there are none. A caption that occurs again is tagged once; `advance` is called for each that is done.

    DataError if a row of ids is not its caption's, TextError for ids or captions that no tokenizer takes."""
    validate_ids(ids, tokenizer.spec)
    if len(captions) != len(ids):
        raise DataError(f"{len(captions)} captions have {len(ids)} rows of ids; give the ids of the same captions")
    rows_of: dict[str, list[int]] = {}
    for row, caption in enumerate(captions):
        rows_of.setdefault(caption, []).append(row)

    weights = np.zeros(ids.shape, np.uint8)
    encoded, tagged = tee(map(tokenizer.tokens, rows_of))  # a stream: taggers work in batches of their own
    important = tagger.important_words(tokens.cleaned for tokens in tagged)
    for rows, tokens, words in zip(rows_of.values(), encoded, important, strict=True):
        made_ids, made_weights = _caption(tokens, words, ids.shape[1], tokenizer.spec)
        if foreign := [row for row in rows if not np.array_equal(ids[row], made_ids)]:
            raise DataError(f"row {foreign[0]} of the ids is not of its caption; encode the captions again")
        weights[rows] = made_weights
        advance()
    return weights


def _caption(tokens: Tokens, important: Sequence[Span], length: int, spec: TextSpec) -> tuple[Ids, Weights]:
    """Ids and weights [length] of one caption, cut as the tokenizer cuts it."""
    row = [spec.start_id, *tokens.ids[: length - 2], spec.end_id]
    ids, weights = np.zeros(length, np.int32), np.zeros(length, np.uint8)
    ids[: len(row)] = row
    end = row.index(spec.end_id)  # a caption that holds the end token as a literal ends there
    if end == 1:
        weights[1] = 1
    else:
        weights[1:end] = 1 + _is_important(tokens, important, spec)[: end - 1]
    return ids, weights


def _is_important(tokens: Tokens, important: Sequence[Span], spec: TextSpec) -> NDArray[np.bool_]:
    """bool [tokens]: the token shares a character with an important word, and is no literal of a special token."""
    inside = np.zeros(len(tokens.cleaned), np.bool_)
    for start, stop in important:
        inside[start:stop] = True
    return np.array(
        [
            token != spec.start_id and inside[start:stop].any()
            for token, (start, stop) in zip(tokens.ids, tokens.spans, strict=True)
        ],
        np.bool_,
    )
