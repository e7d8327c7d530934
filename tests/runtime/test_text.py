"""Cleaning against ftfy and the formula written here, and the tokenizer's own rules; test_tokenizer has the ids."""

from __future__ import annotations

import html
import json
import pickle
import re
import runpy
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import ftfy
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vtr_export.tokenizer import write_tokenizer
from vtr_runtime.errors import BundleError, ConfigError, TextError
from vtr_runtime.manifest import TextSpec
from vtr_runtime.text import CLEANING_STEPS, END, MAX_CHARACTERS, MAX_ROUNDS, Cleaning, Tokenizer, clean, validate_ids

DATA = Path(__file__).parent.parent / "data"
HARD = [json.loads(line) for line in (DATA / "hard_strings.jsonl").read_text().splitlines()]
MODES: tuple[Cleaning, ...] = ("standard", "open_clip")
SPEC = TextSpec()


def cleaned_by_ftfy(text: str, mode: Cleaning) -> str:
    """open_clip's `_clean_lower`, spelled out."""
    fixed = html.unescape(html.unescape(ftfy.fix_text(text, fix_encoding=mode == "open_clip"))).strip()
    return " ".join(fixed.split()).strip().lower()


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("text") / "tokenizer.json"
    assert write_tokenizer(made) == SPEC
    return made


@pytest.fixture(scope="module")
def tokenizer(path: Path) -> Tokenizer:
    return Tokenizer.from_file(path, SPEC)


# Cleaning


def test_the_hard_strings_are_what_their_script_makes() -> None:
    made = runpy.run_path(str(DATA / "make_hard_strings.py"))["lines"]()
    assert (DATA / "hard_strings.jsonl").read_text() == made
    assert len(HARD) > 2000
    assert len({row["class"] for row in HARD}) > 20


@pytest.mark.parametrize("mode", MODES)
def test_hard_strings_are_cleaned_as_by_ftfy(mode: Cleaning) -> None:
    wrong = [row for row in HARD if clean(row["text"], mode) != cleaned_by_ftfy(row["text"], mode)]
    assert wrong == []


def test_the_two_cleanings_differ_in_mojibake_alone() -> None:
    differing = [row for row in HARD if clean(row["text"], "standard") != clean(row["text"], "open_clip")]
    assert {row["class"] for row in differing} == {"mojibake"}
    assert len(differing) == 77


@pytest.mark.parametrize(
    ("text", "standard", "repaired"),
    [
        ("cafÃ©", "cafã©", "café"),
        ("donâ€™t", "donâ€™t", "don't"),
        ("Ã la mode", "ã la mode", "à la mode"),
        ("caf\x85", "caf…", "caf…"),  # a C1 control is read as Windows-1252 in both
        ("“Straße” ﬁn", '"straße" fin', '"straße" fin'),
    ],
)
def test_what_encoding_repair_changes(text: str, standard: str, repaired: str) -> None:
    assert clean(text, "standard") == standard
    assert clean(text, "open_clip") == repaired


SOUP = [*"&#;<\n\r\x1b[1mx \x00é\u0301\u0323İΣ＆ﬁ’", "amp", "amp;", "lt;", "#38;", "&#1;", "Ã©"]


@pytest.mark.parametrize("mode", MODES)
@given(text=st.one_of(st.text(), st.lists(st.sampled_from(SOUP), max_size=30).map("".join)))
def test_any_text_is_cleaned_as_by_ftfy(mode: Cleaning, text: str) -> None:
    assert clean(text, mode) == cleaned_by_ftfy(text, mode)


def test_cleaning_steps_are_named_in_order() -> None:
    common = ("unescape_entities", "unescape_entities", "strip", "collapse_white_space", "lower_case")
    assert CLEANING_STEPS["standard"] == ("fix_characters", *common)
    assert CLEANING_STEPS["open_clip"] == ("fix_characters_and_encoding", *common)


def test_surrogate_pairs_are_joined() -> None:
    assert clean("a \ud83d\ude00") == "a 😀"


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("\ud800", "U+D800 at character 0"),
        ("abc\udfff", "U+DFFF at character 3"),
        ("a\ude00\ud83d", "U+DE00 at character 1"),
        ("\ud83d\ud83d\ude00", "U+D83D at character 0"),
        ("😀\ud83d\ude00\ude01", "U+DE01 at character 3"),
    ],
)
def test_lone_surrogates_are_refused(text: str, where: str) -> None:
    with pytest.raises(TextError, match=re.escape(where)):
        clean(text)


def test_what_is_not_a_caption_is_refused() -> None:
    with pytest.raises(TextError, match="not bytes"):
        clean(b"dog")  # type: ignore[arg-type]
    with pytest.raises(TextError, match="1,000,001 characters"):
        clean("a" * (MAX_CHARACTERS + 1))
    with pytest.raises(ConfigError, match="'basic'; choose one of: standard, open_clip"):
        clean("dog", "basic")  # type: ignore[arg-type]


def test_entities_are_unescaped_up_to_a_depth() -> None:
    # All but two rounds unescape the ampersands, one the rest, and one finds nothing to do.
    assert clean("&" + "amp;" * (MAX_ROUNDS - 2) + "lt;") == "<"
    with pytest.raises(TextError, match=f"after {MAX_ROUNDS} rounds"):
        clean("&" + "amp;" * (MAX_ROUNDS - 1) + "lt;")
    with pytest.raises(TextError, match=f"after {MAX_ROUNDS} rounds"):
        clean("&" + "amp;" * 25_000)
    with pytest.raises(TextError, match=f"after {MAX_ROUNDS} rounds"):
        clean("&" * 30_000 + "#1;" * 30_000)
    assert clean("<\n&" + "amp;" * 40) == "< &" + "amp;" * 38  # after a "<" only the two plain rounds are left


@pytest.mark.parametrize(
    ("number", "meant"), [("9" * 90_000, "\ufffd"), ("0" * 90_000 + "65", "a"), ("0" * 90_000, "\ufffd")]
)
def test_endless_numeric_entities(number: str, meant: str) -> None:
    assert clean(f"&#{number};") == meant
    assert clean(f"&#{number[-20:]};") == html.unescape(f"&#{number[-20:]};").lower()


def test_long_runs_of_combining_marks_are_ordered() -> None:
    # U+0323 (below) sorts before U+0301 (above); the first composes with its letter.
    assert clean("a" + "\u0301\u0323" * 50_000) == "ạ" + "\u0323" * 49_999 + "\u0301" * 50_000
    text = "e\u0301\u0f73\uac01" + "\u0345\u0334\u0f73\u0301" * 400 + "é\u0323"
    assert clean(text) == cleaned_by_ftfy(text, "standard")


@pytest.mark.parametrize("unit", ["a dog ", "\n", "a", "!", "😀", "\u1100\u1161\u11a8", "&lt;", "&", "\x1b[1", "\x00a"])
def test_captions_of_100_kilobytes(tokenizer: Tokenizer, unit: str) -> None:
    text = unit * (100_000 // len(unit.encode()))
    assert clean(text) == cleaned_by_ftfy(text, "standard")
    assert tokenizer.encode([text]).shape == (1, 77)


# Tokenizer


def test_tokenizer_file_that_is_no_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="is missing"):
        Tokenizer.from_file(tmp_path / "tokenizer.json", SPEC)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(BundleError, match="not a readable tokenizer"):
        Tokenizer.from_file(tmp_path / "tokenizer.json", SPEC)


@pytest.mark.parametrize("change", [{"start_id": 1}, {"end_id": 1}, {"vocab_size": 49409}])
def test_tokenizer_file_of_another_model(path: Path, change: dict[str, int]) -> None:
    with pytest.raises(BundleError, match=re.escape("(49406, 49407, 49408), the manifest says")):
        Tokenizer.from_file(path, SPEC.model_copy(update=change))


def test_encode_pads_with_zeros_and_keeps_the_end(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode(["", "dog", "dog " * 75, "dog " * 76, "dog " * 500])
    assert ids.dtype == np.int32
    dog, start, end = 1929, SPEC.start_id, SPEC.end_id
    full = [start, *[dog] * 75, end]
    assert ids.tolist() == [[start, end, *[0] * 75], [start, dog, end, *[0] * 74], full, full, full]
    assert tokenizer.encode([]).shape == (0, 77)


def test_encode_names_the_caption(tokenizer: Tokenizer) -> None:
    with pytest.raises(TextError, match=r"^caption 1: lone surrogate U\+D83D at character 2"):
        tokenizer.encode(["a dog", "a \ud83d"])
    with pytest.raises(TextError, match=r"^caption 2: a caption must be a str, not NoneType"):
        tokenizer.encode(["a", "b", None])  # type: ignore[list-item]


@pytest.mark.parametrize("bare", ["a dog", b"a dog"])
def test_one_bare_caption_is_refused(tokenizer: Tokenizer, bare: Sequence[str]) -> None:
    with pytest.raises(TextError, match="a list of captions is due, not one"):
        tokenizer.encode(bare)


def test_tokens_are_what_encode_cuts(tokenizer: Tokenizer) -> None:
    for row in HARD:
        tokens = tokenizer.tokens(row["text"])
        assert tokens.cleaned == clean(row["text"])
        assert len(tokens.spans) == len(tokens.ids)
        expected = [SPEC.start_id, *tokens.ids[:75], SPEC.end_id]
        assert tokenizer.encode([row["text"]])[0].tolist() == expected + [0] * (77 - len(expected))
    assert len(tokenizer.tokens("dog " * 500).ids) == 500
    with pytest.raises(TextError, match="lone surrogate"):
        tokenizer.tokens("\ud83d")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("A  Dog&#39;s tail!", ["a", "dog", "'s", "tail", "!"]),
        ("", []),
        ("12中 é😀x", ["1", "2", "中", "中", "é", "😀", "x"]),
        ("𐍈a", ["𐍈"] * 4 + ["a"]),
        ("dulcimers", ["dul", "ci", "mers"]),
        ("a <end_of_text> b<start_of_text>", ["a", "<end_of_text>", "b", "<start_of_text>"]),
        ("中!<end_of_text>", ["中", "中", "!", "<", "end", "_", "of", "_", "text", ">"]),
    ],
)
def test_tokens_know_their_characters(tokenizer: Tokenizer, text: str, parts: list[str]) -> None:
    tokens = tokenizer.tokens(text)
    assert [tokens.cleaned[start:stop] for start, stop in tokens.spans] == parts


@given(text=st.one_of(st.text(), st.lists(st.sampled_from([*SOUP, END, "😀", "中"]), max_size=30).map("".join)))
def test_spans_ascend_and_leave_out_blanks_alone(tokenizer: Tokenizer, text: str) -> None:
    try:
        tokens = tokenizer.tokens(text)
    except TextError:
        return
    covered = {place for span in tokens.spans for place in range(*span)}
    assert all(start < stop for start, stop in tokens.spans)
    for ends in zip(*tokens.spans, strict=True):
        assert list(ends) == sorted(ends)
    assert all(tokens.cleaned[place] in " \u0345" for place in set(range(len(tokens.cleaned))) - covered)


def test_threads_and_pickles_agree(tokenizer: Tokenizer) -> None:
    texts = [row["text"] for row in HARD[::4]]
    expected = tokenizer.encode(texts)
    with ThreadPoolExecutor(8) as pool:
        for ids in pool.map(tokenizer.encode, [texts] * 16):
            np.testing.assert_array_equal(ids, expected)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(tokenizer)).encode(texts), expected)


def test_forks_are_silent(path: Path) -> None:
    code = """if True:
        import os, sys
        from pathlib import Path
        from vtr_runtime.manifest import TextSpec
        from vtr_runtime.text import Tokenizer
        tokenizer = Tokenizer.from_file(Path(sys.argv[1]), TextSpec())
        tokenizer.encode(["a dog"] * 64)
        if os.fork() == 0:
            tokenizer.encode(["a dog"] * 64)
            os._exit(0)
        print(os.wait()[1])"""
    command = [sys.executable, "-c", code, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert (done.stdout, done.stderr) == ("0\n", "")


# Ids


def test_trim_keeps_the_longest_row(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode(["a dog", "a dog !", "dog"])
    trimmed = tokenizer.trim(ids)
    np.testing.assert_array_equal(trimmed, ids[:, :5])
    assert trimmed[1].tolist() == [49406, 320, 1929, 256, 49407]
    assert tokenizer.trim(tokenizer.encode([""])).tolist() == [[49406, 49407]]
    assert tokenizer.trim(np.zeros((0, 77), np.int32)).shape == (0, 2)
    assert tokenizer.trim(tokenizer.encode(["dog " * 99])).shape == (1, 77)


def test_ids_of_the_tokenizer_are_valid(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode([row["text"] for row in HARD])
    validate_ids(ids, SPEC)
    validate_ids(tokenizer.trim(ids[:1]), SPEC)


GOOD = [[49406, 1929, 49407, 0], [49406, 49407, 0, 0]]


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        (GOOD, "not list"),
        (np.array(GOOD), "not int64"),
        (np.array(GOOD, np.float32), "not float32"),
        (np.array(GOOD[0], np.int32), "shape [4]"),
        (np.array([[49407]], np.int32), "shape [1, 1]"),
        (np.full((1, 78), 49407, np.int32), "L from 2 to 77"),
        (np.array([GOOD[0], [49406, 49408, 49407, 0]], np.int32), "row 1 of the ids holds 49408, outside 0..49407"),
        (np.array([[49406, -1, 49407, 0], GOOD[0]], np.int32), "row 0 of the ids holds -1"),
        (np.array([*GOOD, [49406, 1929, 0, 0]], np.int32), "row 2 of the ids has no end id 49407"),
    ],
)
def test_ids_that_no_tokenizer_made(ids: Any, words: str) -> None:
    with pytest.raises(TextError, match=re.escape(words)):
        validate_ids(ids, SPEC)
