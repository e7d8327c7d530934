"""Hosts that clean or tokenise captions wrongly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from vtr_runtime.text import _FIXERS, CLEANING_STEPS, Ids, Tokenizer, _normalize_nfc

from .mutant import HostMutant, Patch

RIGHT = Tokenizer.encode
ENCODE = "vtr_runtime.text.Tokenizer.encode"
# What CLIP4Clip's recipes call max_words.
MAX_WORDS = 32


def _without(*steps: str) -> Any:
    """The lists of cleaning steps, each of `steps` taken out once."""

    def shorter(whole: Sequence[str]) -> tuple[str, ...]:
        left = list(whole)
        for step in steps:
            left.remove(step)
        return tuple(left)

    return {mode: shorter(whole) for mode, whole in CLEANING_STEPS.items()}


def _no_cleaning() -> Any:
    return dict.fromkeys(CLEANING_STEPS, ("strip", "collapse_white_space", "lower_case"))


def _encoded(change: Callable[[Tokenizer, Ids], Ids]) -> tuple[Patch, ...]:
    """`change` is made to the right ids [N, context length]."""

    def encode(self: Tokenizer, texts: Sequence[str]) -> Ids:
        return change(self, RIGHT(self, texts).copy())

    return (Patch(ENCODE, encode),)


def _encode_without_end(self: Tokenizer, texts: Sequence[str]) -> Ids:
    """A sentence that is too long keeps its words to the last place."""
    ids = RIGHT(self, texts)
    for row, text in enumerate(texts):
        words = self.tokens(text).ids[: self.spec.context_length - 1]
        ids[row, 1 : len(words) + 1] = words
    return ids


def _padded_with_end(tokenizer: Tokenizer, ids: Ids) -> Ids:
    return np.where(ids == 0, np.int32(tokenizer.spec.end_id), ids)


def _without_start(_: Tokenizer, ids: Ids) -> Ids:
    return np.concatenate([ids[:, 1:], np.zeros_like(ids[:, :1])], axis=1)


def _cut_at_max_words(tokenizer: Tokenizer, ids: Ids) -> Ids:
    long = ids[:, MAX_WORDS - 1] != 0
    ids[:, MAX_WORDS:] = 0
    ids[long, MAX_WORDS - 1] = tokenizer.spec.end_id
    return ids


def _ids(name: str, mistake: str, *patches: Patch) -> HostMutant:
    return HostMutant(name=name, mistake=mistake, expected=("ids",), patches=patches)


def _cleaning(steps: Any) -> Patch:
    return Patch("vtr_runtime.text.CLEANING_STEPS", steps)


WORDS = (
    _ids("text-not-cleaned", "captions go to the tokenizer without repair of characters", _cleaning(_no_cleaning())),
    _ids(
        "not-composed",
        "Unicode is not normalised to NFC",
        Patch("vtr_runtime.text._FIXERS", tuple(fix for fix in _FIXERS if fix is not _normalize_nfc)),
    ),
    _ids(
        "unescaped-once", "HTML entities are unescaped once instead of twice", _cleaning(_without("unescape_entities"))
    ),
    _ids("not-lower-cased", "captions keep their capitals", _cleaning(_without("lower_case"))),
    _ids("end-cut-off", "truncation loses the end token", Patch(ENCODE, _encode_without_end)),
    _ids("padded-with-end", "the rest of a row is filled with the end token", *_encoded(_padded_with_end)),
    _ids("start-forgotten", "a row begins with its first word", *_encoded(_without_start)),
    _ids("cut-at-32", "captions are cut at 32 tokens, as CLIP4Clip's recipes do", *_encoded(_cut_at_max_words)),
)
