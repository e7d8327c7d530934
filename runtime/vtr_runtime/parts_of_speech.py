"""Which words of a caption matter: nouns, adjectives and verbs that are no stop words (DMAE, arXiv 2309.11082).

Two taggers find them: spaCy with an English model, as in the released code, and HanTa, a small tagger in pure Python
with its model in its package."""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from typing import Any, Protocol

from .errors import ConfigError
from .text import Span

# The paper's universal tags. Proper nouns (PROPN) are not among them; in cleaned captions, all in lower case, few names
# are told from common nouns anyway.
IMPORTANT_TAGS = frozenset({"NOUN", "ADJ", "VERB"})
SPACY_MODELS = ("en_core_web_md", "en_core_web_sm")
HANTA_MODEL = "morphmodel_en.pgz"


class Tagger(Protocol):
    """`name` tells tagger, model and versions: another name, other words."""

    name: str

    def important_words(self, texts: Iterable[str]) -> Iterator[list[Span]]:
        """For each cleaned caption where its important words stand, [start, stop) in characters, ascending."""
        ...


def find_tagger(name: str = "auto") -> tuple[Tagger, str]:
    """The tagger of that name, `spacy` or `hanta`, and why it is the one; `auto` prefers spaCy.

    ConfigError for another name, and, with what to install, for a tagger that is not there."""
    if name == "hanta":
        return HantaTagger(), "asked for"
    if name == "spacy":
        return SpacyTagger(_load_spacy()), "asked for"
    if name != "auto":
        raise ConfigError(f"unknown tagger {name!r}; choose one of: auto, spacy, hanta")
    try:
        return SpacyTagger(_load_spacy()), "spaCy and a model of it are installed"
    except ConfigError as error:
        return HantaTagger(), str(error)


class SpacyTagger:
    """spaCy's universal tags and its own stop words."""

    def __init__(self, nlp: Any) -> None:
        """`nlp`: a `spacy.Language` that sets `token.pos_`."""
        meta = nlp.meta
        self.name = f"spaCy {meta['lang']}_{meta['name']} {meta['version']}"
        self._nlp = nlp

    def important_words(self, texts: Iterable[str]) -> Iterator[list[Span]]:
        for document in self._nlp.pipe(texts):
            yield [
                (token.idx, token.idx + len(token.text))
                for token in document
                if token.pos_ in IMPORTANT_TAGS and not token.is_stop
            ]


def _load_spacy() -> Any:
    if importlib.util.find_spec("spacy") is None:
        raise ConfigError("spaCy is not installed; pip install spacy, then python -m spacy download en_core_web_md")
    spacy = importlib.import_module("spacy")
    installed = [model for model in SPACY_MODELS if spacy.util.is_package(model)]
    if not installed:
        raise ConfigError(f"spaCy has no model {' or '.join(SPACY_MODELS)}; python -m spacy download en_core_web_md")
    return spacy.load(installed[0], exclude=["parser", "ner", "lemmatizer"])  # slow, and no tag comes from them


class HantaTagger:
    """HanTa (Wartena 2019), trained on the British National Corpus, and the stop words below."""

    def __init__(self) -> None:
        if importlib.util.find_spec("HanTa") is None:
            raise ConfigError("HanTa is not installed; pip install HanTa")
        self.name = f"HanTa {version('HanTa')} {HANTA_MODEL}"
        self._hanta = importlib.import_module("HanTa.HanoverTagger").HanoverTagger(HANTA_MODEL)

    def important_words(self, texts: Iterable[str]) -> Iterator[list[Span]]:
        for text in texts:
            found = [match.span() for match in _WORD.finditer(text)]
            words = [text[a:b][:_LONGEST_WORD] for a, b in found]
            tags = self._hanta.tag_sent(words, taglevel=0)  # without lemmas
            yield [
                span
                for span, word, tag in zip(found, words, tags, strict=True)
                if tag[:2] in _C5_IMPORTANT and word not in STOP_WORDS
            ]


# HanTa's words are those of its corpus: "is" "n't", "dog" "'s", and "close-up" in one.
_WORD = re.compile(r"n't\b|'(?:s|re|ve|m|ll|d)\b|\w+?(?=n't\b)|\w+(?:-\w+)*|\S")
_LONGEST_WORD = 40  # characters; HanTa's time grows with the square, and no English word is longer
# The C5 tag set: NN0, NN1, NN2 common nouns; AJ0, AJC, AJS adjectives; VVB ... VVZ lexical verbs. Be, do and have are
# VB, VD and VH, modals VM0, proper nouns NP0, ordinals ORD.
_C5_IMPORTANT = frozenset({"NN", "AJ", "VV"})

# HanTa brings no stop words. Most words of the closed classes have tags of their own; these are tagged as nouns,
# adjectives or lexical verbs, always or by mistake, and say little.
_AUXILIARIES = """
    be am is are was were been being do does did done doing have has had having ca can could may might must shall should
    will wo would isn aren wasn weren don doesn didn ain d ll m re s t ve
"""
_LIGHT_VERBS = """
    become becomes became becoming get gets got gotten getting give gives gave given giving go goes went gone going
    keep keeps kept keeping let lets letting make makes made making put puts putting see sees seen seem seems seemed
    seeming show shows showed shown showing take takes took taken taking use uses used using
"""
_QUANTITIES = """
    all amount another any both bunch couple each either enough few fewer half less lot lots many more most much none
    other others part plenty several single some various whole
"""
_POINTERS = """
    back bottom first former front here last latter next own same second side such that there these third this those
    top what whatever which who
"""
STOP_WORDS = frozenset(f"{_AUXILIARIES} {_LIGHT_VERBS} {_QUANTITIES} {_POINTERS}".split())
