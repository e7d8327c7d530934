"""Sentences that are asked again."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vtr_runtime import Model, load
from vtr_runtime.query_cache import CacheInfo, QueryCache

SENTENCES = ["a dog runs", "two cats", "", "a red circle moves left", "犬"]


@pytest.fixture
def model(small_bundle: Path) -> Model:
    return load(small_bundle, "onnx-cpu", threads=1, query_cache=4)


@given(keys=st.lists(st.integers(0, 9), max_size=60), capacity=st.integers(0, 5))
def test_it_holds_those_that_a_naive_list_holds(keys: list[int], capacity: int) -> None:
    cache, recent, hits = QueryCache(capacity), list[int](), 0
    for key in keys:
        found = cache.get(bytes([key]))
        assert (found is not None) == (key in recent)
        if found is not None:
            assert found.tolist() == [key]
            hits += 1
        else:
            cache.put(bytes([key]), np.array([key], np.float32))
        recent = [*(other for other in recent if other != key), key][-capacity:] if capacity else []
    assert cache.info() == CacheInfo(hits, len(keys) - hits, len(recent), capacity)


def test_an_answer_is_the_same_again(model: Model, small_bundle: Path) -> None:
    plain = load(small_bundle, "onnx-cpu", threads=1, query_cache=0)
    want = plain.encode_texts(SENTENCES)
    for _ in range(2):
        assert np.abs(model.encode_texts(SENTENCES) - want).max() < 1e-6
    assert np.abs(model.encode_texts(SENTENCES[::-1])[::-1] - want).max() < 1e-6
    assert plain.query_cache.info() == CacheInfo(0, 5, 0, 0)
    assert model.encode_texts([]).shape == (0, 64)


def test_the_tower_is_asked_only_for_what_is_new(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    tower = model.backend.text

    def text(ids: Any) -> Any:
        asked.append(len(ids))
        return tower(ids)

    monkeypatch.setattr(model.backend, "text", text)
    first = model.encode_texts(["two cats", "a dog runs", "two cats"])
    assert asked == [2]
    assert np.array_equal(first[0], first[2])
    again = model.encode_texts(["  TWO   cats", "&lt;b&gt;"])  # what cleans to the same text is the same query
    assert asked == [2, 1]
    assert np.array_equal(again[0], first[0])
    assert model.query_cache.info() == CacheInfo(1, 3, 3, 4)


def test_an_answer_may_be_written_on(model: Model) -> None:
    first = model.encode_texts(["two cats"])
    kept = first.copy()
    first[:] = 0
    assert np.array_equal(model.encode_texts(["two cats"]), kept)


def test_threads_share_it(model: Model) -> None:
    want = {text: model.encode_texts([text])[0] for text in SENTENCES}

    def ask(which: int) -> bool:
        texts = [SENTENCES[which % 5], SENTENCES[(which * 3 + 1) % 5]]
        return all(
            np.abs(row - want[text]).max() < 1e-6 for text, row in zip(texts, model.encode_texts(texts), strict=True)
        )

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(200)))
    assert model.query_cache.info().size == 4
