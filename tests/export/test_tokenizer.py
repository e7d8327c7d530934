"""Ids against open_clip's own tokenizer behind the same cleaning: hard strings, real captions, any text."""

from __future__ import annotations

import csv
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import open_clip.tokenizer
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from tokenizers import Tokenizer as Bpe

from vtr_export.tokenizer import write_tokenizer
from vtr_runtime.manifest import TextSpec
from vtr_runtime.text import Cleaning, Tokenizer, clean

ROOT = Path(__file__).parent.parent.parent
ANNOTATIONS = ROOT.parent / "shared" / "data" / "annotations.tar.xz"
HARD = [json.loads(line) for line in (ROOT / "tests/data/hard_strings.jsonl").read_text().splitlines()]
SAMPLE = 20_000


class Reference:
    """open_clip's tokenizer, with its own cleaning or with ours in its place."""

    def __init__(self, cleaning: Cleaning) -> None:
        self.original = open_clip.tokenizer.SimpleTokenizer()
        if cleaning == "standard":
            self.original.clean_fn = clean

    def encode(self, texts: list[str], context_length: int = 77) -> NDArray[np.int64]:
        ids: NDArray[np.int64] = self.original(texts, context_length).numpy()
        return ids


REFERENCES: dict[Cleaning, Reference] = {"standard": Reference("standard"), "open_clip": Reference("open_clip")}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    write_tokenizer(made)
    return made


@pytest.fixture(scope="module")
def ours(path: Path) -> dict[str, Tokenizer]:
    return {cleaning: Tokenizer.from_file(path, TextSpec(cleaning=cleaning)) for cleaning in REFERENCES}


def differing(tokenizer: Tokenizer, texts: list[str]) -> list[str]:
    ids, expected = tokenizer.encode(texts), REFERENCES[tokenizer.spec.cleaning].encode(texts)
    return [texts[row] for row in np.flatnonzero((ids != expected).any(axis=1))]


# The file


def test_the_file_is_the_same_every_time(tmp_path: Path) -> None:
    one, two = tmp_path / "one.json", tmp_path / "two.json"
    write_tokenizer(one)
    write_tokenizer(two, context_length=16, cleaning="open_clip")
    assert one.read_bytes() == two.read_bytes()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["one.json", "two.json"]


def test_the_settings_are_those_of_open_clip(tmp_path: Path) -> None:
    original = REFERENCES["open_clip"].original
    expected = TextSpec(
        cleaning="open_clip",
        context_length=32,
        start_id=original.sot_token_id,
        end_id=original.eot_token_id,
        vocab_size=original.vocab_size,
    )
    assert write_tokenizer(tmp_path / "t.json", context_length=32, cleaning="open_clip") == expected


def test_the_file_holds_the_vocabulary_and_nothing_else(tmp_path: Path) -> None:
    write_tokenizer(tmp_path / "t.json")
    content = json.loads((tmp_path / "t.json").read_bytes())
    assert content["model"]["vocab"] == REFERENCES["standard"].original.encoder
    assert [token["content"] for token in content["added_tokens"]] == ["<start_of_text>", "<end_of_text>"]
    absent = ("normalizer", "post_processor", "truncation", "padding")
    assert [content[part] for part in absent] == [None] * 4


# Words


@pytest.mark.parametrize("step", [61, pytest.param(1, marks=pytest.mark.long)])
def test_every_code_point_splits_as_in_open_clip(path: Path, step: int) -> None:
    pre_tokenizer = Bpe.from_file(str(path)).pre_tokenizer
    pattern = REFERENCES["standard"].original.pat
    codes = [code for code in range(0x110000) if not 0xD800 <= code < 0xE000 and (code < 0x3400 or code % step == 0)]
    wrong = []
    for first in range(0, len(codes), 1000):
        # One of four outcomes for each: a letter, a number, another character, none of them.
        text = "".join(f"a{chr(code)}!{chr(code)}1" for code in codes[first : first + 1000])
        words = [text[start:end] for _, (start, end) in pre_tokenizer.pre_tokenize_str(text)]
        if words != pattern.findall(text):
            wrong.append(hex(codes[first]))
    assert wrong == []
    assert len(codes) > 0x3400


# Ids


@pytest.mark.parametrize("name", sorted({row["class"] for row in HARD}))
def test_hard_strings(ours: dict[str, Tokenizer], name: str) -> None:
    texts = [row["text"] for row in HARD if row["class"] == name]
    assert differing(ours["standard"], texts) == []
    assert differing(ours["open_clip"], texts) == []


def test_another_context_length(tmp_path: Path) -> None:
    spec = write_tokenizer(tmp_path / "t.json", context_length=5)
    texts = ["", "dog", "a dog", "a dog runs", "a dog runs away", "<end_of_text> <end_of_text> <start_of_text> a dog"]
    ids = Tokenizer.from_file(tmp_path / "t.json", spec).encode(texts)
    np.testing.assert_array_equal(ids, REFERENCES["standard"].encode(texts, 5))


PARTS = ["<start_of_text>", "<end_of_text>", "'s", "'re", *"<>'ſ_!1a é\u0345中😀"]


@given(text=st.one_of(st.text(), st.lists(st.sampled_from(PARTS)).map("".join)))
def test_any_text(ours: dict[str, Tokenizer], text: str) -> None:
    assert differing(ours["standard"], [text]) == []
    assert differing(ours["open_clip"], [text]) == []


# Real captions


def strings_in(value: Any, keys: tuple[str, ...] = ("sentences", "text", "description", "caption")) -> Iterator[str]:
    """The captions in a JSON value: strings, or lists of strings, under one of `keys`, however deep."""
    if isinstance(value, list):
        for item in value:
            yield from strings_in(item, keys)
    elif isinstance(value, dict):
        for key, item in value.items():
            if key in keys and isinstance(item, str):
                yield item
            elif key in keys and all(isinstance(each, str) for each in item):
                yield from item
            else:
                yield from strings_in(item, keys)


def captions_in(name: str, text: str) -> Iterator[str]:
    if name == "captions_msvd.json":
        for captions in json.loads(text).values():
            yield from captions
    elif name.endswith(".json"):
        yield from strings_in(json.loads(text))
    elif name.endswith(".jsonl"):
        for line in text.splitlines():
            yield from strings_in(json.loads(line))
    elif name.endswith(".csv"):
        for row in csv.DictReader(io.StringIO(text, newline="")):
            yield from (row[key] for key in ("sentence", "text", "script", "descriptions") if row.get(key))
    elif name.endswith(".tsv"):
        yield from (line.split("\t", 1)[1] for line in text.splitlines())
    elif name.startswith("charades_sta"):
        yield from (line.split("##", 1)[1] for line in text.splitlines())


@pytest.fixture(scope="module")
def real_captions() -> list[str]:
    """The distinct captions of all benchmark annotations, 207,132 of 367,193, sorted."""
    found: set[str] = set()
    with tarfile.open(ANNOTATIONS) as archive:
        for member in archive:
            if (file := archive.extractfile(member)) and not member.name.endswith((".pkl", ".LICENSE")):
                found.update(captions_in(Path(member.name).name, file.read().decode()))
    return sorted(found)


@pytest.mark.skipif(not ANNOTATIONS.is_file(), reason="shared data not beside the checkout")
@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.long)])
def test_real_captions(ours: dict[str, Tokenizer], real_captions: list[str], every: bool) -> None:
    assert len(real_captions) > 200_000
    texts = real_captions if every else real_captions[:: len(real_captions) // SAMPLE]
    assert differing(ours["standard"], texts) == []
    own = open_clip.tokenizer.get_clean_fn("lower")
    assert [text for text in texts if clean(text, "standard") != own(text)] == []  # no mojibake among them
