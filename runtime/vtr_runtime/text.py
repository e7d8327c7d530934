"""Captions to ids: cleaning, then the BPE of `tokenizer.json`, then start, end and truncation.

The ids equal those of open_clip's `SimpleTokenizer` behind the same cleaning. Cleaning is a list of named steps that
the manifest carries; the first is `ftfy.fix_text`, with or without ftfy's guess at wrongly decoded text."""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Literal

import ftfy
import numpy as np
import numpy.typing as npt
import tokenizers
from ftfy import fixes

from .errors import BundleError, ConfigError, TextError
from .manifest import TextSpec

Cleaning = Literal["standard", "open_clip"]
Ids = npt.NDArray[np.int32]
Span = tuple[int, int]  # [start, stop) in characters

START = "<start_of_text>"
END = "<end_of_text>"
MAX_CHARACTERS = 1_000_000  # ftfy cuts longer lines at arbitrary places
MAX_ROUNDS = 32  # of fixing one line; 207,132 real captions took at most 2, without a limit time grows with the square
_LONG = 1_000  # characters from which the order of combining marks is worth a sort of our own

_LONE_SURROGATE = re.compile(r"[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]")
_LINE = re.compile(r"[^\n]*\n|[^\n]+")
_LONG_NUMBER = re.compile(r"&#([0-9]{10,})")


def clean(text: str, mode: Cleaning = "standard") -> str:
    """Bring `text` to the form that the tokenizer expects: one line, single blanks, lower case.

    Raises TextError for what is not a `str`, a lone surrogate, more than `MAX_CHARACTERS`, or a line that still changes
    after `MAX_ROUNDS`; ConfigError for an unknown `mode`. Time grows with the length, whatever the text.
    """
    if mode not in CLEANING_STEPS:
        raise ConfigError(f"unknown text cleaning {mode!r}; choose one of: {', '.join(CLEANING_STEPS)}")
    if not isinstance(text, str):
        raise TextError(f"a caption must be a str, not {type(text).__name__}; decode or convert it first")
    if len(text) > MAX_CHARACTERS:
        raise TextError(f"a caption of {len(text):,} characters is too long; cut it to at most {MAX_CHARACTERS:,}")
    if lone := _LONE_SURROGATE.search(text):
        raise TextError(
            f"lone surrogate U+{ord(lone.group()):04X} at character {lone.start()}; "
            "decode the caption again from its bytes, or remove that character"
        )
    for step in CLEANING_STEPS[mode]:
        text = _STEPS[step](text)
    return text


def _normalize_nfc(text: str) -> str:
    if len(text) > _LONG and not text.isascii():
        text = _order_marks(text)
    return unicodedata.normalize("NFC", text)


def _order_marks(text: str) -> str:
    # CPython orders combining marks by insertion, 7 to 14 s for 100,000; a stable sort leaves it nothing to move.
    decomposed = "".join(unicodedata.normalize("NFD", char) for char in text)
    runs = groupby(decomposed, key=lambda char: unicodedata.combining(char) > 0)
    return "".join(char for _, run in runs for char in sorted(run, key=unicodedata.combining))


# ftfy's own fixers in ftfy's own order (`ftfy.fix_and_explain`), each a table or a short pattern.
_FIXERS: tuple[Callable[[str], str], ...] = (
    fixes.fix_c1_controls,
    fixes.fix_latin_ligatures,
    fixes.fix_character_width,
    fixes.uncurl_quotes,
    fixes.fix_line_breaks,
    fixes.fix_surrogates,
    fixes.remove_terminal_escapes,
    fixes.remove_control_chars,
    _normalize_nfc,
)


def _fix_characters(text: str) -> str:
    """`ftfy.fix_text` with encoding repair off."""
    return _fix_lines(text, _FIXERS)


def _fix_characters_and_encoding(text: str) -> str:
    """`ftfy.fix_text` with its defaults."""
    return _fix_lines(text, (ftfy.fix_encoding, *_FIXERS))


def _fix_lines(text: str, fixers: tuple[Callable[[str], str], ...]) -> str:
    # ftfy works line by line and takes text for HTML, whose entities stay, from the first line on that holds a "<".
    fixed = []
    entities = True
    for line in _LINE.findall(text):
        entities = entities and "<" not in line
        fixed.append(_fix_until_stable(line, (fixes.unescape_html, *fixers) if entities else fixers))
    return "".join(fixed)


def _fix_until_stable(line: str, fixers: tuple[Callable[[str], str], ...]) -> str:
    for _ in range(MAX_ROUNDS):
        before = line
        for fix in fixers:
            line = fix(line)
        if line == before:
            return line
    raise TextError(
        f"the caption still changes after {MAX_ROUNDS} rounds of cleaning, its HTML entities are nested that deep; "
        "unescape them first"
    )


def _unescape_entities(text: str) -> str:
    # int() refuses more than 4,300 digits; eight significant ones are beyond Unicode already.
    text = _LONG_NUMBER.sub(lambda number: "&#" + (number[1].lstrip("0") or "0")[:8], text)
    return html.unescape(text)


def _collapse_white_space(text: str) -> str:
    return " ".join(text.split())


_STEPS: dict[str, Callable[[str], str]] = {
    "fix_characters": _fix_characters,
    "fix_characters_and_encoding": _fix_characters_and_encoding,
    "unescape_entities": _unescape_entities,
    "strip": str.strip,
    "collapse_white_space": _collapse_white_space,
    "lower_case": str.lower,
}
_COMMON_STEPS = ("unescape_entities", "unescape_entities", "strip", "collapse_white_space", "lower_case")
CLEANING_STEPS: dict[Cleaning, tuple[str, ...]] = {
    "standard": ("fix_characters", *_COMMON_STEPS),
    "open_clip": ("fix_characters_and_encoding", *_COMMON_STEPS),
}


@dataclass(frozen=True)
class Tokens:
    """One caption's tokens, without start and end, not truncated."""

    cleaned: str
    ids: tuple[int, ...]
    spans: tuple[Span, ...]  # where each token stands in `cleaned`; the tokens of one character share its span


class Tokenizer:
    """Captions to ids for one bundle. Safe to share between threads, to pickle and to fork."""

    def __init__(self, bpe: tokenizers.Tokenizer, spec: TextSpec) -> None:
        self._bpe = bpe
        self.spec = spec

    @classmethod
    def from_file(cls, path: Path, spec: TextSpec) -> Tokenizer:
        """Read a `tokenizer.json`; raises BundleError if it is absent, damaged, or not what `spec` describes."""
        if not path.is_file():
            raise BundleError(f"{path} is missing; export the bundle again")
        try:
            bpe = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # tokenizers raises nothing narrower
            raise BundleError(f"{path} is not a readable tokenizer ({error}); export the bundle again") from error
        found = (bpe.token_to_id(START), bpe.token_to_id(END), bpe.get_vocab_size())
        if found != (spec.start_id, spec.end_id, spec.vocab_size):
            raise BundleError(
                f"{path} has start id, end id and vocabulary size {found}, the manifest says "
                f"{(spec.start_id, spec.end_id, spec.vocab_size)}; export the bundle again"
            )
        return cls(bpe, spec)

    def encode(self, texts: Sequence[str]) -> Ids:
        """int32 [N, context_length]: start, the caption's ids, end, then zeros; a longer caption is cut, its end kept.

        Raises TextError that names the caption, see `clean`.
        """
        if isinstance(texts, str | bytes):
            raise TextError(f"a list of captions is due, not one {type(texts).__name__}; pass [{texts[:40]!r}]")
        ids = np.zeros((len(texts), self.spec.context_length), np.int32)
        for number, text in enumerate(texts):
            try:
                pieces = self._pieces(clean(text, self.spec.cleaning))
            except TextError as error:
                raise TextError(f"caption {number}: {error}") from error
            words = [token for _, piece in pieces for token in piece.ids][: self.spec.context_length - 2]
            ids[number, : len(words) + 2] = [self.spec.start_id, *words, self.spec.end_id]
        return ids

    def tokens(self, text: str) -> Tokens:
        """The ids that `encode` puts between start and end, all of them, and where they come from.

        Raises TextError, see `clean`.
        """
        cleaned = clean(text, self.spec.cleaning)
        pieces = list(self._pieces(cleaned))
        ids = tuple(token for _, piece in pieces for token in piece.ids)
        spans = tuple((at + start, at + stop) for at, piece in pieces for start, stop in piece.offsets)
        return Tokens(cleaned, ids, spans)

    def _pieces(self, cleaned: str) -> Iterator[tuple[int, tokenizers.Encoding]]:
        """Parts of the text, encoded, each with the character at which it begins."""
        # One text at a time: `encode_batch` starts threads, and then every later fork of the process prints a warning.
        if START not in cleaned and END not in cleaned:
            yield 0, self._bpe.encode(cleaned, add_special_tokens=False)
            return
        # open_clip reads "<end_of_text>" as a special token only where a word can begin, not in "!<end_of_text>";
        # tokenizers would find it anywhere, so it is given one word at a time.
        for _, (start, stop) in self._bpe.pre_tokenizer.pre_tokenize_str(cleaned):
            yield start, self._bpe.encode(cleaned[start:stop], add_special_tokens=False)

    @staticmethod
    def trim(ids: Ids) -> Ids:
        """Cut the columns that are padding in every row: [N, L] of the longest row, at least two columns."""
        used = np.flatnonzero(ids.any(axis=0))
        return ids[:, : max(2, int(used[-1]) + 1 if used.size else 0)]


def validate_ids(ids: Ids, spec: TextSpec) -> None:
    """Raise TextError unless `ids` is int32 [N, 2..context_length], each in 0..vocab_size-1, each row with an end id.

    Several engines gather zeros for an id outside the vocabulary, without a word.
    """
    if not isinstance(ids, np.ndarray) or ids.dtype != np.int32:
        kind = ids.dtype if isinstance(ids, np.ndarray) else type(ids).__name__
        raise TextError(f"ids must be an int32 array, not {kind}; make them with the bundle's tokenizer")
    if ids.ndim != 2 or not 2 <= ids.shape[1] <= spec.context_length:
        raise TextError(f"ids have shape {list(ids.shape)}; what fits is [N, L] with L from 2 to {spec.context_length}")
    outside = np.argwhere((ids < 0) | (ids >= spec.vocab_size))
    if outside.size:
        row, column = outside[0]
        raise TextError(
            f"row {row} of the ids holds {ids[row, column]}, outside 0..{spec.vocab_size - 1}; "
            "make ids with the bundle's tokenizer"
        )
    endless = np.flatnonzero(~(ids == spec.end_id).any(axis=1))
    if endless.size:
        raise TextError(
            f"row {endless[0]} of the ids has no end id {spec.end_id}; make ids with the bundle's tokenizer"
        )
