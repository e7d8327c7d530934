"""Rescoring against loops written from the papers' formulas."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from vtr_runtime.errors import DataError
from vtr_runtime.rescoring import dual_softmax, query_bank_norm, second_stage, top_k

RNG = np.random.default_rng(0)


def test_dual_softmax_equals_the_loop():
    scores, temperature = RNG.uniform(-1, 1, size=(7, 4)).astype(np.float32), 0.05
    found = dual_softmax(scores, temperature)
    assert found.dtype == np.float64
    for i in range(7):
        for j in range(4):
            total = sum(math.exp(float(scores[q, j]) / temperature) for q in range(7))
            share = math.exp(float(scores[i, j]) / temperature) / total
            assert found[i, j] == pytest.approx(7 * float(scores[i, j]) * share, rel=1e-9)


def test_dual_softmax_takes_a_hub_away():
    # Item 0 is close to both queries; the second needs it more.
    scores = np.array([[0.50, 0.45], [0.60, 0.30]])
    assert scores.argmax(axis=1).tolist() == [0, 0]
    assert dual_softmax(scores, 0.05).argmax(axis=1).tolist() == [1, 0]


def test_a_small_temperature_does_not_overflow():
    scores = RNG.uniform(-1, 1, size=(5, 5))
    assert np.isfinite(dual_softmax(scores, 1e-5)).all()
    assert np.isfinite(query_bank_norm(scores, scores, 1e-5)).all()


def naive_bank_norm(scores, bank, temperature, dynamic):
    """The quotient itself, row by row."""
    active = {max(range(len(row)), key=row.__getitem__) for row in bank}
    rows, changed = [], []
    for row in scores:
        normalised = not dynamic or max(range(len(row)), key=row.__getitem__) in active
        changed.append(normalised)
        sums = [sum(math.exp(other[j] / temperature) for other in bank) for j in range(len(row))]
        rows.append([math.exp(row[j] / temperature) / sums[j] if normalised else row[j] for j in range(len(row))])
    return np.array(rows), np.array(changed)


@pytest.mark.parametrize("dynamic", [True, False])
def test_query_bank_norm_equals_the_loop(dynamic):
    scores, bank = RNG.uniform(-1, 1, size=(40, 12)), RNG.uniform(-1, 1, size=(9, 12))
    expected, changed = naive_bank_norm(scores.tolist(), bank.tolist(), 0.05, dynamic)
    found = query_bank_norm(scores, bank, 0.05, dynamic=dynamic)
    assert np.exp(found[changed] / 0.05) == pytest.approx(expected[changed], rel=1e-9)
    assert (found[~changed] == scores[~changed]).all()
    assert 0 < (~changed).sum() < 40 if dynamic else changed.all()


def test_the_bank_changes_only_queries_that_meet_its_favourites():
    bank = np.array([[0.9, 0.1, 0.0], [0.8, 0.0, 0.1]])  # item 0 is what every query of the bank likes best
    scores = np.array([[0.5, 0.4, 0.0], [0.4, 0.5, 0.0]])
    found = query_bank_norm(scores, bank, 0.05)
    assert found[0].argmax() == 1
    assert (found[1] == scores[1]).all()


def test_top_k_is_stable():
    assert top_k(np.array([[1, 3, 3, 2, 3]]), 3).tolist() == [[1, 2, 4]]
    assert top_k(np.array([[1, 3, 3, 2, 3], [0, 0, 0, 0, 0]]), 4).tolist() == [[1, 2, 4, 3], [0, 1, 2, 3]]
    assert top_k(np.zeros((1, 3)), 9).shape == (1, 3)


def naive_order(first, second, weight, k):
    """Item numbers, best first: the first stage's k best by their sums, then the others as they were."""
    before = sorted(range(len(first)), key=lambda item: -first[item])
    head = sorted(before[:k], key=lambda item: -(first[item] + weight * second[item]))
    return head + before[k:]


@given(
    arrays(np.float64, (6,), elements=st.floats(-1, 1).map(lambda x: round(x, 3)), unique=True),
    arrays(np.float64, (6,), elements=st.floats(-5, 5), unique=True),
    st.integers(1, 6),
    st.sampled_from([0.5, 1.0, 3.0]),
)
def test_second_stage_equals_the_loop(first, second, k, weight):
    sums = first + weight * second
    top = top_k(first[None], k)
    found = second_stage(first[None], second[top], top, weight)[0]
    inside = top[0]
    assert found[inside] == pytest.approx(sums[inside])
    if len(np.unique(sums)) == 6:
        assert np.argsort(-found).tolist() == naive_order(first.tolist(), second.tolist(), weight, k)


def test_what_is_outside_keeps_its_differences_and_ties_and_stays_clearly_below():
    first = np.array([[0.9, 0.8, 0.3, 0.3, 0.1]])
    top = np.array([[1, 0]])
    found = second_stage(first, np.array([[-4.0, 2.0]]), top, 1.0)[0]
    assert found[:2].tolist() == pytest.approx([2.9, -3.2])
    assert found[2] == found[3]
    assert found[3] - found[4] == pytest.approx(0.2)
    assert found[:2].min() - found[2] > 0.5


def test_arguments_stay_as_they_are():
    scores = RNG.uniform(size=(3, 4))
    before = scores.copy()
    top = top_k(scores, 2)
    dual_softmax(scores, 0.1)
    query_bank_norm(scores, scores, 0.1)
    second_stage(scores, np.ones((3, 2)), top, 1.0)
    assert (scores == before).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: dual_softmax(np.array([[np.nan]]), 0.1), "finite"),
        (lambda: dual_softmax(np.zeros((2, 2)), 0.0), "temperature is 0.0"),
        (lambda: dual_softmax(np.zeros((0, 2)), 0.1), "finite"),
        (lambda: query_bank_norm(np.zeros((2, 2)), np.zeros((2, 2)), -1.0), "temperature is -1"),
        (lambda: query_bank_norm(np.zeros((2, 2)), np.zeros((2, 3)), 0.1), "another gallery"),
        (lambda: query_bank_norm(np.zeros((2, 2)), np.zeros((0, 2)), 0.1), "the bank must be"),
        (lambda: top_k(np.zeros((1, 2)), 0), "at least 1"),
        (lambda: second_stage(np.zeros((1, 3)), np.zeros((1, 2)), np.array([[1, 1]]), 1.0), "do not fit"),
        (lambda: second_stage(np.zeros((1, 3)), np.zeros((1, 2)), np.array([[1, 3]]), 1.0), "do not fit"),
        (lambda: second_stage(np.zeros((1, 3)), np.zeros((1, 1)), np.array([[1, 2]]), 1.0), "do not fit"),
        (lambda: second_stage(np.zeros((2, 3)), np.zeros((1, 1)), np.array([[1]]), 1.0), "do not fit"),
    ],
)
def test_what_cannot_be_rescored_is_refused(call, message):
    with pytest.raises(DataError, match=message):
        call()
