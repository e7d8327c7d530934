"""The second stage on a split, and the check that it scores pairs by themselves."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from vtr_runtime.errors import ConfigError
from vtr_training.data.clip import Clip
from vtr_training.embed import EmbeddedSplit, Tokens
from vtr_training.leak_check import check_leak, take
from vtr_training.rankings import Ranking, choose_bank, dsl_ranking, qb_ranking, raw_ranking
from vtr_training.second_stage import (
    evaluate_second_stage,
    second_stage_ranking,
    second_stage_scores,
    top_pairs,
)

WEIGHT = 0.7


class MeanRerank(nn.Module):
    """The sentence and the weighted mean word, against the mean shown frame; counts the pairs that it scores."""

    def __init__(self):
        super().__init__()
        self.dropout = nn.Dropout(0.9)
        self.pairs = 0

    def forward(self, text, words, word_weights, frames, frame_mask):
        self.pairs += len(text) * len(frames)
        word = (words * word_weights[..., None]).sum(1) / word_weights.sum(1, keepdim=True)
        shown = frame_mask[..., None].float()
        return self.dropout((text + 2 * word) @ ((frames * shown).sum(1) / shown.sum(1)).T)


class TinyModel(nn.Module):
    def __init__(self, rerank):
        super().__init__()
        self.rerank = rerank
        self.logit_scale = nn.Parameter(torch.zeros(()))
        self.config = SimpleNamespace(rerank=SimpleNamespace(weight=WEIGHT))


@pytest.fixture
def model():
    return TinyModel(MeanRerank()).train()


def make_split(seed=0, clips=9, per_clip=2, dim=8):
    rng = np.random.default_rng(seed)

    def unit(*shape):
        rows = rng.normal(size=(*shape, dim))
        return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)

    texts = clips * per_clip
    weights = rng.integers(1, 3, size=(texts, 5)).astype(np.float32)
    weights[::3, 3:] = 0
    mask = np.ones((clips, 4), bool)
    mask[::2, 2:] = False
    tokens = Tokens(unit(texts, 5) * (weights > 0)[..., None], weights, unit(clips, 4) * mask[..., None], mask)
    made = tuple(Clip(Path(f"{i}.mp4"), tuple(f"{i} {j}" for j in range(per_clip)), "test") for i in range(clips))
    return EmbeddedSplit(made, unit(clips), unit(texts), np.repeat(np.arange(clips), per_clip), (), tokens)


def naive_pair(split, text, video):
    tokens = split.tokens
    word = sum(w * x for w, x in zip(tokens.word_weights[text], tokens.words[text].astype(float), strict=True))
    word = word / tokens.word_weights[text].sum()
    shown = [x for x, real in zip(tokens.frames[video].astype(float), tokens.frame_mask[video], strict=True) if real]
    return float((split.text[text] + 2 * word) @ np.mean(shown, axis=0))


def test_only_wanted_pairs_are_scored_and_right(model):
    split = make_split()
    wanted = np.random.default_rng(1).random((18, 9)) < 0.3
    wanted[4] = False
    found = second_stage_scores(model, split, wanted)
    assert (np.isnan(found) == ~wanted).all()
    for text, video in np.argwhere(wanted).tolist():
        assert found[text, video] == pytest.approx(naive_pair(split, text, video), abs=1e-5)
    assert model.rerank.pairs == wanted.sum()
    assert model.training
    assert model.rerank.training


def naive_reordered(first, second, k):
    """Per query the items, best first."""
    orders = []
    for i, row in enumerate(first):
        before = sorted(range(len(row)), key=lambda item, row=row: -row[item])
        head = sorted(before[:k], key=lambda item, row=row, i=i: -(row[item] + WEIGHT * second(i, item)))
        orders.append(head + before[k:])
    return orders


@pytest.mark.parametrize("k", [1, 3, 50])
def test_both_directions_reorder_their_own_top_k(model, k):
    split = make_split()
    cosines = split.text.astype(float) @ split.video.astype(float).T
    found = second_stage_ranking(model, split, k)
    forward = naive_reordered(cosines, lambda text, video: naive_pair(split, text, video), k)
    backward = naive_reordered(cosines.T, lambda video, text: naive_pair(split, text, video), k)
    assert np.argsort(-found.forward, axis=1).tolist() == forward
    assert np.argsort(-found.backward, axis=1).tolist() == backward
    assert str(k) in found.title
    places = [order.index(owner) + 1 for order, owner in zip(forward, split.owners.tolist(), strict=True)]
    evaluation = evaluate_second_stage(model, split, k)
    assert evaluation.retrieval.t2v.mean_rank == pytest.approx(np.mean(places))
    assert evaluation.v2t_caption_groups is not None
    assert evaluation.value("t2v_r1") == pytest.approx(np.mean([place == 1 for place in places]))


def test_wanted_pairs_are_the_top_of_either_side():
    split = make_split()
    raw = raw_ranking(split)
    wanted = top_pairs(raw, 2)
    for text, video in np.ndindex(wanted.shape):
        above = sum(raw.forward[text] > raw.forward[text, video])
        beside = sum(raw.forward[:, video] > raw.forward[text, video])
        assert wanted[text, video] == (above < 2 or beside < 2)


def test_what_is_missing_is_named(model):
    split = make_split()
    with pytest.raises(ConfigError, match="no second stage"):
        second_stage_scores(TinyModel(None), split, np.ones((18, 9), bool))
    bare = EmbeddedSplit(split.clips, split.video, split.text, split.owners, ())
    with pytest.raises(ConfigError, match="tokens=True"):
        second_stage_scores(model, bare, np.ones((18, 9), bool))


def test_take_keeps_rows_together():
    split = make_split()
    texts, videos = np.array([5, 0, 2]), np.array([2, 7, 0])
    part = take(split, texts, videos)
    assert [clip.video.name for clip in part.clips] == ["2.mp4", "7.mp4", "0.mp4"]
    assert part.owners.tolist() == [0, 2, -1]  # caption 5 is clip 2's, 0 clip 0's, 2 clip 1's
    assert (part.tokens.frames == split.tokens.frames[videos]).all()
    assert (part.tokens.words == split.tokens.words[texts]).all()
    assert (part.video == split.video[videos]).all()
    assert (part.text == split.text[texts]).all()


def test_a_second_stage_of_pairs_passes(model):
    split = make_split()
    wanted = top_pairs(raw_ranking(split), 3)
    found = check_leak(lambda part, pairs: second_stage_scores(model, part, pairs), split, wanted)
    assert not found.found
    assert len(found.differences) == 3
    assert found.pairs == wanted.sum()
    assert "keep their scores" in found.sentence


def by_index(split, wanted):
    """Pools each video with the caption at the video's own index, as T-MASS's released evaluation does."""
    return leaky(split, wanted, np.arange(len(split.clips)) % len(split.text))


def by_owner(split, wanted):
    """Pools each video with its own caption where there is one."""
    own = [next(iter(np.flatnonzero(split.owners == clip)), 0) for clip in range(len(split.clips))]
    return leaky(split, wanted, np.array(own))


def by_mean(split, wanted):
    """Takes the mean of the gallery off: nothing of the ground truth, but more than the pair."""
    frames = split.tokens.frames.mean(axis=1)
    return np.where(wanted, split.text @ (frames - frames.mean(axis=0)).T, np.nan).astype(np.float32)


def by_queries(split, wanted):
    scores = split.text @ split.tokens.frames.mean(axis=1).T
    return np.where(wanted, scores - scores.mean(axis=0), np.nan).astype(np.float32)


def leaky(split, wanted, rows):
    attention = np.einsum("nd,ntd->nt", split.text[rows], split.tokens.frames)
    pooled = np.einsum("nt,ntd->nd", np.exp(attention), split.tokens.frames)
    return np.where(wanted, split.text @ pooled.T, np.nan).astype(np.float32)


@pytest.mark.parametrize("per_clip", [1, 2])
@pytest.mark.parametrize("scorer", [by_index, by_owner, by_mean, by_queries])
def test_a_leak_is_caught(scorer, per_clip):
    split = make_split(per_clip=per_clip)
    found = check_leak(scorer, split, top_pairs(raw_ranking(split), 3))
    assert found.found
    assert "sees more than the pair" in found.sentence
    assert found.to_json()["found"]


def test_a_score_that_vanishes_is_a_leak_too():
    split = make_split()
    wanted = np.ones((18, 9), bool)

    def scorer(part, pairs):
        return np.full(pairs.shape, 1.0 if len(part.clips) == 9 else np.nan, np.float32)

    found = check_leak(scorer, split, wanted)
    assert found.found
    assert found.to_json()["differences"]["a third of the videos gone"] is None


def test_dsl_changes_each_way_over_its_own_queries():
    raw = raw_ranking(make_split())
    found = dsl_ranking(raw)
    for given, rescored in ((raw.forward, found.forward), (raw.backward, found.backward)):
        e = np.exp(given / 0.01)
        assert rescored == pytest.approx(given * e / e.sum(axis=0) * len(given))
    assert "transductive" in found.title


def test_query_bank_leaves_the_way_back_raw():
    split = make_split()
    raw, bank = raw_ranking(split), make_split(seed=5).text
    found = qb_ranking(raw, split, bank, of=999)
    other = bank.astype(float) @ split.video.astype(float).T
    active = np.isin(raw.forward.argmax(axis=1), other.argmax(axis=1))
    quotient = np.exp(20 * raw.forward) / np.exp(20 * other).sum(axis=0)
    assert active.any()
    assert np.exp(20 * found.forward[active]) == pytest.approx(quotient[active])
    assert (found.forward[~active] == raw.forward[~active]).all()
    assert (found.backward == raw.backward).all()
    assert "18 of 999 training captions" in found.title


def test_a_bank_is_spread_over_all_captions():
    assert choose_bank(["a", "b", "c"]) == ["a", "b", "c"]
    many = choose_bank([str(i) for i in range(25_000)])
    assert (len(many), many[0], many[-1]) == (10_000, "0", "24999")
    assert len(set(many)) == 10_000


def test_a_ranking_is_evaluated_with_its_own_tolerance():
    clips = make_split(clips=2, per_clip=1).clips
    scores = np.array([[0.5, 0.5 - 1e-6], [0.5 - 1e-6, 0.5]])
    strict, loose = (Ranking("x", "x", scores, scores.T, tolerance) for tolerance in (0.0, 1e-5))
    assert strict.evaluate(clips, np.arange(2)).retrieval.t2v.recall[1] == 100
    assert loose.evaluate(clips, np.arange(2)).retrieval.t2v.recall[1] == 50
