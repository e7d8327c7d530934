"""Weights against rules written out in the test, taggers against words chosen by hand."""

import importlib.util
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vtr_export.model.backbone import TextTransformer
from vtr_export.model.config import TextConfig
from vtr_export.tokenizer import write_tokenizer
from vtr_runtime import parts_of_speech
from vtr_runtime.errors import ConfigError, DataError, StorageError, TextError
from vtr_runtime.parts_of_speech import STOP_WORDS, HantaTagger, SpacyTagger
from vtr_runtime.text import Tokenizer, clean
from vtr_training.data.parts_of_speech import choose_tagger
from vtr_training.data.word_weights import cached_word_weights, word_weights

HARD = [json.loads(line)["text"] for line in (Path(__file__).parents[1] / "data/hard_strings.jsonl").open()]

# Captions and the words of theirs that are nouns, adjectives or lexical verbs and no stop words.
CHOSEN = {
    "a man is playing a guitar on the stage": "man playing guitar stage",
    "Two dogs are running through the tall grass.": "dogs running tall grass",
    "there is a woman who is slicing an onion with a sharp knife": "woman slicing onion sharp knife",
    "she quickly opens the red door and walks in": "opens red door walks",
    "a black laptop keyboard filmed in portrait format": "black laptop keyboard filmed portrait format",
    "the camera moves slowly over light wooden floorboards": "camera moves light wooden floorboards",
    "a see-through candle holder fills the frame": "see-through candle holder fills frame",
    "the boy doesn't eat the dog's food, isn't it funny?": "boy eat dog food funny",
    "many other people can be seen there": "people",
    "they have been here before": "",
    "3 cars": "cars",
}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path = tmp_path_factory.mktemp("text") / "tokenizer.json"
    return Tokenizer.from_file(path, write_tokenizer(path))


@pytest.fixture(scope="module")
def hanta() -> HantaTagger:
    return HantaTagger()


class Listed:
    """Takes the words of a list for important, and remembers what it was asked."""

    def __init__(self, words: str, name: str = "listed 1") -> None:
        self.name, self.asked = name, []
        self._pattern = re.compile(rf"\b(?:{words})\b")

    def important_words(self, texts: Iterable[str]) -> Iterator[list[tuple[int, int]]]:
        for text in texts:
            self.asked.append(text)
            yield [match.span() for match in self._pattern.finditer(text)]


def weights_of(caption: str, tokenizer: Tokenizer, tagger) -> list[int]:
    return word_weights([caption], tokenizer.trim(tokenizer.encode([caption])), tokenizer, tagger)[0].tolist()


# Weights


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("a dog", [0, 1, 2, 0]),
        ("A  DOG!", [0, 1, 2, 1, 0]),
        ("a dulcimer plays", [0, 1, 2, 2, 2, 1, 0]),  # dul-ci-mer
        ("dogs", [0, 1, 0]),
        ("", [0, 1]),
        ("  ", [0, 1]),
        ("😀 dog", [0, 1, 2, 0]),
        ("中 dog", [0, 1, 1, 2, 0]),  # two tokens of one character
        ("𐍈dog 12", [0, 2, 2, 2, 2, 2, 1, 1, 0]),  # four tokens of one letter, and "dog"
        ("&quot;dog&quot;", [0, 1, 2, 1, 0]),
        ("a <start_of_text> dog", [0, 1, 1, 2, 0]),
        ("a <end_of_text> dog", [0, 1, 0, 0, 0]),
        ("<end_of_text> dog", [0, 1, 0, 0]),
        ("a !<end_of_text>", [0, *[1] * 9, 0]),  # no special token there
    ],
)
def test_weights_by_hand(tokenizer: Tokenizer, caption: str, expected: list[int]) -> None:
    assert weights_of(caption, tokenizer, Listed("𐍈?dog|dulcimer|start_of_text")) == expected


def test_a_cut_caption(tokenizer: Tokenizer) -> None:
    short = Tokenizer(tokenizer._bpe, tokenizer.spec.model_copy(update={"context_length": 5}))
    assert weights_of("a dog a dog a dog", short, Listed("dog")) == [0, 1, 2, 1, 0]
    assert weights_of("a a dulcimer", short, Listed("dulcimer")) == [0, 1, 1, 2, 0]
    assert weights_of("dog " * 500, tokenizer, Listed("dog")) == [0, *[2] * 75, 0]


def test_the_same_caption_is_tagged_once(tokenizer: Tokenizer) -> None:
    captions = ["a dog", "the cat runs", "a dog"]
    tagger = Listed("dog|cat")
    weights = word_weights(captions, tokenizer.encode(captions), tokenizer, tagger)
    assert weights.dtype == np.uint8
    assert weights.shape == (3, 77)
    assert tagger.asked == ["a dog", "the cat runs"]
    assert weights[:, :5].tolist() == [[0, 1, 2, 0, 0], [0, 1, 2, 1, 0], [0, 1, 2, 0, 0]]
    assert not weights[:, 5:].any()
    assert word_weights([], tokenizer.encode([]), tokenizer, tagger).shape == (0, 77)


def test_ids_of_other_captions_are_refused(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode(["a dog", "a cat", "a"])
    with pytest.raises(DataError, match="row 1 of the ids"):
        word_weights(["a dog", "a dog", "a"], ids, tokenizer, Listed("dog"))
    with pytest.raises(DataError, match="row 2 of the ids"):
        word_weights(["a dog", "a cat", "a cat"], ids, tokenizer, Listed("dog"))
    with pytest.raises(DataError, match="2 captions have 3 rows"):
        word_weights(["a dog", "a cat"], ids, tokenizer, Listed("dog"))
    with pytest.raises(TextError, match="int32"):
        word_weights(["a dog", "a cat", "a"], ids.astype(np.int64), tokenizer, Listed("dog"))


@pytest.fixture(scope="module")
def tower() -> TextTransformer:
    return TextTransformer(TextConfig(width=8, heads=1, layers=1), 8, quick_gelu=False, end_id=49407)


def assert_masks_agree(captions: list[str], tokenizer: Tokenizer, tagger, tower: TextTransformer) -> None:
    ids = tokenizer.encode(captions)
    weights = word_weights(captions, ids, tokenizer, tagger)
    np.testing.assert_array_equal(weights > 0, tower.word_mask(torch.from_numpy(ids)).numpy())
    assert set(np.unique(weights)) <= {0, 1, 2}


PIECES = [
    *"a!3 é中😀'-",
    " dog",
    " isn't",
    "<end_of_text>",
    "<start_of_text>",
    " playing",
    "\ud83d\ude00",
    "&lt;",
    " red",
]


@settings(max_examples=60)
@given(captions=st.lists(st.lists(st.sampled_from(PIECES), max_size=30).map("".join), min_size=1, max_size=4))
def test_weights_are_positive_exactly_where_the_tower_looks(
    tokenizer: Tokenizer, hanta: HantaTagger, tower: TextTransformer, captions: list[str]
) -> None:
    assert_masks_agree(captions, tokenizer, hanta, tower)


def test_hard_strings(tokenizer: Tokenizer, hanta: HantaTagger, tower: TextTransformer) -> None:
    assert_masks_agree(HARD, tokenizer, hanta, tower)


# Cache


def test_weights_are_made_once(tokenizer: Tokenizer, tmp_path: Path) -> None:
    captions = ["a dog", "smile \ud83d\ude00"]
    ids, folder = tokenizer.encode(captions), tmp_path / "new" / "cache"
    first, second = Listed("dog"), Listed("smile")
    made = cached_word_weights(captions, ids, tokenizer, first, folder)
    np.testing.assert_array_equal(made, word_weights(captions, ids, tokenizer, Listed("dog")))
    np.testing.assert_array_equal(cached_word_weights(captions, ids, tokenizer, second, folder), made)
    assert (len(first.asked), len(second.asked)) == (2, 0)
    assert [file.suffix for file in folder.iterdir()] == [".npy"]


def test_what_changed_is_weighed_anew(tokenizer: Tokenizer, tmp_path: Path) -> None:
    open_clip = Tokenizer(tokenizer._bpe, tokenizer.spec.model_copy(update={"cleaning": "open_clip"}))
    ids = tokenizer.encode(["a dog"])
    for captions, given_ids, by, name in [
        (["a dog"], ids, tokenizer, "one"),
        (["A dog"], ids, tokenizer, "one"),
        (["a dog"], ids[:, :4], tokenizer, "one"),
        (["a dog"], ids, open_clip, "one"),
        (["a dog"], ids, tokenizer, "two"),
    ]:
        tagger = Listed("dog", name)
        weights = cached_word_weights(captions, given_ids, by, tagger, tmp_path)
        assert len(tagger.asked) == 1
        assert weights.shape == given_ids.shape


def test_a_folder_that_cannot_be_used(tokenizer: Tokenizer, tmp_path: Path) -> None:
    captions, folder = ["a dog"], tmp_path / "file"
    ids = tokenizer.encode(captions)
    folder.write_text("")
    with pytest.raises(StorageError, match=r"set data\.cache"):
        cached_word_weights(captions, ids, tokenizer, Listed("dog"), folder)
    cached_word_weights(captions, ids, tokenizer, Listed("dog"), tmp_path / "cache")
    (kept,) = (tmp_path / "cache").iterdir()
    for damage in (b"", kept.read_bytes()[:-9], b"not an array"):
        kept.write_bytes(damage)
        with pytest.raises(StorageError, match="delete it"):
            cached_word_weights(captions, ids, tokenizer, Listed("dog"), tmp_path / "cache")


# Taggers


def important(tagger, caption: str) -> list[str]:
    text = clean(caption)
    (spans,) = tagger.important_words([text])
    return [text[start:stop] for start, stop in spans]


@pytest.mark.parametrize("caption", CHOSEN)
def test_hanta_finds_the_words_chosen_by_hand(hanta: HantaTagger, caption: str) -> None:
    assert important(hanta, caption) == CHOSEN[caption].split()


@pytest.mark.parametrize("caption", ["", "中文字", "😀 !", "12 3", "'", "n't", "the of and", "x" * 100_000])
def test_hanta_takes_any_text(hanta: HantaTagger, caption: str) -> None:
    assert set(important(hanta, caption)) <= {"x" * 100_000}


def test_stop_words_are_cleaned_words() -> None:
    assert all(re.fullmatch("[a-z]+", word) for word in STOP_WORDS)


class StandIn:
    """What SpacyTagger uses of a `spacy.Language`: words at blanks, parts of speech from a table."""

    meta = {"lang": "en", "name": "stand_in", "version": "1.2"}  # noqa: RUF012
    tags = {"man": "NOUN", "is": "AUX", "playing": "VERB", "red": "ADJ", "make": "VERB", "paris": "PROPN"}  # noqa: RUF012

    def pipe(self, texts: Iterable[str]) -> Iterator[list[SimpleNamespace]]:
        for text in texts:
            yield [
                SimpleNamespace(
                    idx=word.start(), text=word[0], pos_=self.tags.get(word[0], "X"), is_stop=word[0] in ("is", "make")
                )
                for word in re.finditer(r"\S+", text)
            ]


def test_spacy_tagger_on_a_stand_in(tokenizer: Tokenizer) -> None:
    tagger = SpacyTagger(StandIn())
    assert tagger.name == "spaCy en_stand_in 1.2"
    assert important(tagger, "the man is playing red make paris") == ["man", "playing", "red"]
    assert weights_of("the man is playing", tokenizer, tagger) == [0, 1, 2, 1, 2, 0]


def test_spacy_tagger_on_spacy(tokenizer: Tokenizer) -> None:
    spacy = pytest.importorskip("spacy")
    nlp = spacy.blank("en")
    ruler = nlp.add_pipe("attribute_ruler")
    for word, tag in StandIn.tags.items():
        ruler.add(patterns=[[{"LOWER": word}]], attrs={"POS": tag})
    tagger = SpacyTagger(nlp)
    assert important(tagger, "the man is playing, red make paris") == ["man", "playing", "red"]
    assert important(tagger, "") == []
    assert weights_of("the man-playing isn't red", tokenizer, tagger) == [0, 1, 2, 1, 2, 1, 1, 2, 0]


# Choice


def pretend(monkeypatch: pytest.MonkeyPatch, *, installed: bool, models: tuple[str, ...] = ()) -> None:
    loaded = SimpleNamespace(
        util=SimpleNamespace(is_package=lambda name: name in models),
        load=lambda name, exclude: SimpleNamespace(
            meta={"lang": "en", "name": name[3:], "version": "3.8"}, off=exclude
        ),
    )
    find, load = importlib.util.find_spec, importlib.import_module
    monkeypatch.setattr(
        parts_of_speech.importlib.util, "find_spec", lambda name: (installed or None) if name == "spacy" else find(name)
    )
    monkeypatch.setattr(
        parts_of_speech.importlib, "import_module", lambda name: loaded if name == "spacy" else load(name)
    )


def test_spacy_where_it_is_installed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pretend(monkeypatch, installed=True, models=("en_core_web_sm", "en_core_web_md"))
    assert choose_tagger("spacy").name == "spaCy en_core_web_md 3.8"
    assert capsys.readouterr().err == ""
    pretend(monkeypatch, installed=True, models=("en_core_web_sm",))
    assert choose_tagger().name == "spaCy en_core_web_sm 3.8"
    assert "by spaCy en_core_web_sm 3.8 (spaCy and a model of it are installed)" in capsys.readouterr().err
    assert choose_tagger("hanta").name.startswith("HanTa ")


@pytest.mark.parametrize(
    ("installed", "missing"),
    [(False, "spaCy is not installed; pip install spacy"), (True, "python -m spacy download en_core_web_md")],
)
def test_without_spacy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], installed: bool, missing: str
) -> None:
    pretend(monkeypatch, installed=installed)
    with pytest.raises(ConfigError, match=re.escape(missing)):
        choose_tagger("spacy")
    assert choose_tagger("auto").name.startswith("HanTa 1.")
    said = capsys.readouterr().err
    assert "parts of speech: by HanTa" in said
    assert missing in said


def test_a_tagger_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="unknown tagger 'nltk'; choose one of: auto, spacy, hanta"):
        choose_tagger("nltk")
    monkeypatch.setattr(parts_of_speech.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match="pip install HanTa"):
        choose_tagger("hanta")
