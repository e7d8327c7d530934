"""Metrics against naive loops, and against random tie breaking done many times."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vtr_runtime.errors import DataError
from vtr_runtime.metrics import direction, group_video_to_text, per_query, ranks, retrieval

RNG = np.random.default_rng(0)


def naive_mean(scores, relevant, k=None):
    """Over every order of the gallery, each sorted stably by score: the mean rank of the first relevant, or R@k."""
    results = []
    for order in permutations(range(len(scores))):
        ranked = sorted(order, key=lambda item: -scores[item])
        place = next(i for i, item in enumerate(ranked) if item in relevant) + 1
        results.append(place if k is None else float(place <= k))
    return sum(results) / len(results)


@pytest.mark.parametrize(
    ("scores", "relevant"),
    [
        ([0.9, 0.5, 0.5, 0.5, 0.1], {2}),
        ([0.5, 0.5, 0.5, 0.5, 0.5], {0}),
        ([0.5, 0.5, 0.5, 0.5, 0.5], {1, 3}),
        ([0.9, 0.5, 0.5, 0.5, 0.5, 0.2], {1, 4, 5}),
        ([0.1, 0.2, 0.3, 0.4], {0}),
    ],
)
def test_ties_equal_the_mean_over_every_order(scores, relevant):
    found = ranks(np.array([scores]), [relevant])
    assert found.mean[0] == pytest.approx(naive_mean(scores, relevant))
    for k in range(1, len(scores) + 1):
        assert found.found_within(k)[0] == pytest.approx(naive_mean(scores, relevant, k))


def test_optimistic_and_pessimistic_bracket_the_tie():
    found = ranks(np.array([[0.9, 0.5, 0.5, 0.5, 0.1]]), [{2}])
    assert (found.optimistic[0], found.mean[0], found.pessimistic[0]) == (2, 3.0, 4)


def naive_ranks(scores, relevant):
    return [
        min(sum(row[j] > row[i] for j in range(len(row)) if j not in wanted) + 1 for i in wanted)
        for row, wanted in zip(scores.tolist(), relevant, strict=True)
    ]


def test_several_captions_and_unequal_numbers():
    texts, videos = 60, 17
    scores = RNG.normal(size=(texts, videos))
    owner = np.concatenate([np.arange(videos), RNG.integers(videos, size=texts - videos)])
    result = retrieval(scores, [{int(video)} for video in owner])
    t2v = naive_ranks(scores, [{int(video)} for video in owner])
    v2t = naive_ranks(scores.T, [set(np.flatnonzero(owner == video).tolist()) for video in range(videos)])
    for found, expected, gallery in ((result.t2v, t2v, videos), (result.v2t, v2t, texts)):
        assert (found.queries, found.gallery) == (len(expected), gallery)
        assert found.recall == pytest.approx({k: 100 * np.mean([rank <= k for rank in expected]) for k in (1, 5, 10)})
        assert found.median_rank == np.median(expected)
        assert found.mean_rank == pytest.approx(np.mean(expected))
    assert result.rsum == pytest.approx(sum(result.t2v.recall.values()) + sum(result.v2t.recall.values()))


def test_a_permuted_gallery_changes_nothing():
    # A leak through the index (the diagonal) would show here: the right item is no longer at the query's own index.
    scores = RNG.normal(size=(30, 30)) + 2 * np.eye(30)
    order = RNG.permutation(30)
    back = np.argsort(order)
    straight = retrieval(scores, np.eye(30, dtype=bool))
    moved = retrieval(scores[:, order], [{int(back[query])} for query in range(30)])
    assert moved == straight
    assert 0 < straight.t2v.recall[1] < 100


def test_constant_scores_are_worth_chance_only():
    found = direction(ranks(np.zeros((8, 20)), [{i} for i in range(8)]), 20)
    assert found.recall == pytest.approx({1: 5.0, 5: 25.0, 10: 50.0})
    assert found.mean_rank == found.median_rank == 10.5


def test_tolerance_makes_near_scores_ties():
    scores = np.array([[0.5, 0.5 + 1e-7, 0.5 - 1e-7, 0.4]])
    assert ranks(scores, [{0}]).mean[0] == 2
    found = ranks(scores, [{0}], tolerance=1e-5)
    assert found.found_within(1)[0] == pytest.approx(1 / 3)
    assert (found.optimistic[0], found.pessimistic[0]) == (1, 3)


def test_candidates_restrict_a_query():
    scores = np.array([[0.1, 0.9, 0.8, 0.2]])
    assert ranks(scores, [{0}]).optimistic[0] == 4
    assert ranks(scores, [{0}], candidates=np.array([[True, False, True, False]])).optimistic[0] == 2


@pytest.mark.parametrize(
    ("scores", "relevant", "message"),
    [
        (np.array([[0.1, np.nan]]), [{0}], "finite"),
        (np.zeros(3), [{0}], "finite"),
        (np.zeros((2, 3)), [{0}, set()], "query 1 has no relevant item"),
        (np.zeros((2, 3)), [{0}], "relevance of 1 queries"),
        (np.zeros((1, 3)), [{3}], "outside the gallery of 3"),
        (np.zeros((2, 3)), np.ones((3, 2), bool), "does not fit"),
        (np.zeros((2, 3)), np.ones((2, 3), int), "does not fit"),
    ],
)
def test_what_cannot_be_ranked_is_refused(scores, relevant, message):
    with pytest.raises(DataError, match=message):
        ranks(scores, relevant)


def test_candidates_of_another_shape_are_refused():
    with pytest.raises(DataError, match="candidates"):
        ranks(np.zeros((2, 3)), [{0}, {1}], candidates=np.ones((2, 2), bool))


@st.composite
def tied_retrieval(draw):
    """Small whole-number scores, hence many ties, of more texts than videos; every video has a text."""
    videos = draw(st.integers(1, 6))
    owners = [*range(videos), *draw(st.lists(st.integers(0, videos - 1), max_size=8))]
    row = st.lists(st.integers(0, 3), min_size=videos, max_size=videos)
    scores = draw(st.lists(row, min_size=len(owners), max_size=len(owners)))
    return np.array(scores, float), np.array(owners), draw(st.randoms())


def naive_bounds(row, relevant):
    """(all ties won, all ties lost), 1-based, of the best relevant item among the others."""
    best = max(row[item] for item in relevant)
    others = [row[item] for item in range(len(row)) if item not in relevant]
    return 1 + sum(x > best for x in others), 1 + sum(x >= best for x in others)


def check_bounds(found, rows, relevant):
    for figures, places in zip(
        (found.optimistic, found.pessimistic),
        zip(*[naive_bounds(row, wanted) for row, wanted in zip(rows, relevant, strict=True)], strict=True),
        strict=True,
    ):
        assert figures.recall == pytest.approx({k: 100 * np.mean([p <= k for p in places]) for k in (1, 5, 10)})
        assert figures.median_rank == np.median(places)
        assert figures.mean_rank == pytest.approx(np.mean(places))
    assert (found.queries, found.gallery) == (len(rows), len(rows[0]))
    for k in (1, 5, 10):
        assert found.pessimistic.recall[k] <= found.recall[k] + 1e-9
        assert found.recall[k] <= found.optimistic.recall[k] + 1e-9


@given(tied_retrieval())
def test_bounds_of_both_directions_equal_the_loop(case):
    scores, owners, _ = case
    captions = [set(np.flatnonzero(owners == video).tolist()) for video in range(scores.shape[1])]
    found = retrieval(scores, owners[:, None] == np.arange(scores.shape[1]))
    check_bounds(found.t2v, scores.tolist(), [{owner} for owner in owners.tolist()])
    check_bounds(found.v2t, scores.T.tolist(), captions)


@given(tied_retrieval())
def test_caption_groups_equal_the_loop(case):
    scores, owners, _ = case
    videos = scores.shape[1]
    table = [[max(scores[owners == group, video]) for group in range(videos)] for video in range(videos)]
    check_bounds(group_video_to_text(scores, owners), table, [{video} for video in range(videos)])


@given(tied_retrieval())
def test_a_permuted_set_gives_the_same_figures(case):
    scores, owners, random = case
    texts, videos = scores.shape
    rows, columns = random.sample(range(texts), texts), random.sample(range(videos), videos)

    def figures(of_scores, of_owners):
        found = retrieval(of_scores, of_owners[:, None] == np.arange(videos))
        return [part.to_json() for part in (found.t2v, found.v2t, group_video_to_text(of_scores, of_owners))]

    straight, moved = figures(scores, owners), figures(scores[np.ix_(rows, columns)], np.argsort(columns)[owners[rows]])
    for before, after in zip(straight, moved, strict=True):
        assert after == {name: pytest.approx(value) for name, value in before.items()}


def test_caption_groups_are_easier_beyond_the_first_place():
    # Video 0's own caption is fourth of five, behind three captions of video 1: the second group of two.
    scores = np.array([[0.5, 0.0], [0.9, 1.0], [0.8, 1.0], [0.7, 1.0], [0.1, 1.0]])
    owners = np.array([0, 1, 1, 1, 1])
    assert retrieval(scores, [{0}, {1}, {1}, {1}, {1}]).v2t.mean_rank == (4 + 1) / 2
    assert group_video_to_text(scores, owners).mean_rank == (2 + 1) / 2


@pytest.mark.parametrize("owners", [[0, 1], [0, 0, 0], [0, 1, 2], [-1, 0, 1]])
def test_owners_that_do_not_fit_are_refused(owners):
    with pytest.raises(DataError, match="one of the 2 videos for each of 3 texts"):
        group_video_to_text(np.zeros((3, 2)), np.array(owners))


def test_the_way_back_may_have_scores_of_its_own():
    found = retrieval(np.eye(3), np.eye(3, dtype=bool), backward=-np.eye(3))
    assert found.t2v.recall[1] == 100
    assert found.v2t.mean_rank == 3


def test_ties_cannot_hide():
    found = direction(ranks(np.zeros((4, 20)), [{i} for i in range(4)]), 20)
    assert (found.optimistic.recall[1], found.pessimistic.recall[10]) == (100, 0)
    assert (found.optimistic.mean_rank, found.pessimistic.median_rank) == (1, 20)


def test_every_query_on_its_own():
    scores = np.array([[0.9, 0.2, 0.7], [0.5, 0.5, 0.5], [0.1, 0.8, 0.3]])
    found = per_query(scores, [{0}, {1, 2}, {0}])
    assert [(one.rank, one.optimistic_rank, one.pessimistic_rank) for one in found] == [
        (1, 1, 1),
        (pytest.approx(4 / 3), 1, 2),
        (3, 3, 3),
    ]
    assert [(one.item, one.wrong) for one in found] == [(0, 2), (1, 0), (0, 1)]
    assert [(one.score, one.wrong_score) for one in found] == [(0.9, 0.7), (0.5, 0.5), (0.1, 0.8)]
    assert [one.margin for one in found] == pytest.approx([0.2, 0, -0.7])


def test_a_query_without_a_wrong_item():
    (found,) = per_query(np.array([[0.3, 0.4]]), [{0, 1}])
    assert (found.item, found.rank, found.wrong, found.wrong_score, found.margin) == (1, 1, None, None, None)


def test_json_names():
    result = retrieval(np.eye(3), np.eye(3, dtype=bool)).to_json()
    figures = {"R@1": 100.0, "R@5": 100.0, "R@10": 100.0, "MdR": 1.0, "MnR": 1.0}
    assert result["t2v"] == {"queries": 3, "gallery": 3, **figures, "optimistic": figures, "pessimistic": figures}
    assert result["Rsum"] == 600.0
