"""How much each token of a caption counts in DMAE's token-wise score (textual attention, arXiv 2309.11082).

Parts of speech are found once, when data are prepared, and never in training: the weights lie beside the ids, in a file
whose name is a fingerprint of all that they are made from, so a cache is never stale."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from itertools import tee
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vtr_runtime.console import progress
from vtr_runtime.errors import DataError, StorageError
from vtr_runtime.manifest import TextSpec, fingerprint
from vtr_runtime.publish import staged_file
from vtr_runtime.text import Ids, Span, Tokenizer, Tokens, validate_ids

from .parts_of_speech import Tagger

Weights = NDArray[np.uint8]

WEIGHTS_VERSION = 1  # raise when words are chosen or weighed in another way


def word_weights(captions: Sequence[str], ids: Ids, tokenizer: Tokenizer, tagger: Tagger) -> Weights:
    """uint8 [M, L] for `ids`, int32 [M, L], of M captions: 2 for every token of an important word, 1 for other tokens,
    and 0 outside the text tower's word mask, which holds the tokens between start and the first end, or that end alone
    where there are none. A caption that occurs again is tagged once.

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
    with progress("weighing words", len(rows_of)) as bar:
        for rows, tokens, words in zip(rows_of.values(), encoded, important, strict=True):
            made_ids, made_weights = _caption(tokens, words, ids.shape[1], tokenizer.spec)
            if foreign := [row for row in rows if not np.array_equal(ids[row], made_ids)]:
                raise DataError(f"row {foreign[0]} of the ids is not of its caption; encode the captions again")
            weights[rows] = made_weights
            bar.advance()
    return weights


def cached_word_weights(
    captions: Sequence[str], ids: Ids, tokenizer: Tokenizer, tagger: Tagger, folder: Path
) -> Weights:
    """`word_weights`, kept in `folder` and read from there when asked for the same again.

    StorageError if the folder cannot be used."""
    place = folder / f"word-weights-{_key(captions, ids, tokenizer.spec, tagger)}.npy"
    try:
        if not place.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            weights = word_weights(captions, ids, tokenizer, tagger)
            with staged_file(place) as staged, staged.open("wb") as stream:
                np.save(stream, weights)
        loaded: Weights = np.load(place)
    except (OSError, StorageError) as error:
        raise StorageError(
            f"word weights cannot be kept in {folder} ({error}); set data.cache to a folder with room"
        ) from error
    except (ValueError, EOFError) as error:  # numpy, for what is no .npy file
        raise StorageError(f"{place} is damaged ({error}); delete it and run the same command again") from error
    return loaded


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


def _key(captions: Sequence[str], ids: Ids, spec: TextSpec, tagger: Tagger) -> str:
    # Escaped as ASCII: a caption may hold a surrogate pair, which UTF-8 refuses and cleaning joins.
    texts, rows = json.dumps(list(captions)).encode(), ids.tobytes()
    digests = [hashlib.sha256(data).hexdigest() for data in (texts, rows)]
    return fingerprint([WEIGHTS_VERSION, tagger.name, spec.model_dump(mode="json"), digests])[:24]
