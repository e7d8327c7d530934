"""Losses against loops in float64."""

import itertools
import math

import numpy as np
import pytest
import torch

from vtr_runtime.errors import ConfigError
from vtr_training.losses import bsl, hard_negatives, info_nce, neg_nce, same_rows


def unit_rows(count, width, seed):
    rows = np.random.default_rng(seed).normal(size=(count, width))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


VIDEO, TEXT = unit_rows(6, 5, 0), unit_rows(6, 5, 1)
SAME = np.eye(6, dtype=bool)
SAME[1, 4] = SAME[4, 1] = SAME[2, 3] = SAME[3, 2] = True
NONE = np.eye(6, dtype=bool)


def naive_info_nce(scores, same):
    total = 0.0
    for rows in (scores, scores.T):
        for i in range(len(rows)):
            kept = [j for j in range(len(rows)) if j == i or not same[i][j]]
            chances = {j: math.exp(float(rows[i][j])) for j in kept}
            total -= math.log(chances[i] / sum(chances.values())) / len(rows)
    return total / 2


def naive_teachers(video, text, same, temperature, threshold):
    """Q_vv and Q_tt; per row a dictionary of the chances of its neighbours, empty where there is none."""
    teachers = []
    for own in (video, text):
        rows = []
        for i in range(len(own)):
            kept = [j for j in range(len(own)) if j != i and not same[i][j]]
            if threshold is not None:
                near = [j for j in kept if float(own[i] @ own[j]) > threshold]
                rows.append({j: 1 / len(near) if j in near else 0.0 for j in kept} if near else {})
                continue
            powers = {j: math.exp(float(own[i] @ own[j]) / temperature) for j in kept}
            rows.append({j: power / sum(powers.values()) for j, power in powers.items()})
        teachers.append(rows)
    return teachers


def naive_mean(first, second):
    if not first or not second:
        return first or second
    return {j: (first[j] + second[j]) / 2 for j in first}


def naive_bsl(video, text, same, temperature, pairing="own", direction="forward", threshold=None, teachers=None):
    vv, tt = teachers or naive_teachers(video, text, same, temperature, threshold)
    if pairing == "swapped":
        vv, tt = tt, vv
    if pairing == "averaged":
        vv = tt = [naive_mean(first, second) for first, second in zip(vv, tt, strict=True)]
    total = 0.0
    for q_rows, own, other in ((vv, video, text), (tt, text, video)):
        for i, q in enumerate(q_rows):
            powers = {j: math.exp(float(own[i] @ other[j]) / temperature) for j in q}
            p = {j: power / sum(powers.values()) for j, power in powers.items()}
            if direction == "forward":
                total += sum(q[j] * math.log(q[j] / p[j]) for j in q if q[j] > 0) / len(video)
            else:
                total += sum(p[j] * math.log(p[j] / q[j]) for j in q) / len(video)
    return total / 2


def naive_hard(scores, same, margin):
    hard = np.zeros(scores.shape, dtype=bool)
    for i, j in np.ndindex(*scores.shape):
        if i != j and not same[i][j]:
            by_row, by_column = margin + scores[i][j] - scores[i][i], margin + scores[i][j] - scores[j][j]
            hard[i, j] = max(0, by_row) + max(0, by_column) > 0
    return hard


def naive_neg_nce(scores, scale, hard, same, positive, negative):
    total = 0.0
    for rows, pairs in ((scores, hard), (scores.T, hard.T)):
        chance = np.zeros(rows.shape)
        for i in range(len(rows)):
            kept = [j for j in range(len(rows)) if j == i or not same[i][j]]
            powers = {j: math.exp(scale * float(rows[i][j])) for j in kept}
            for j in kept:
                chance[i, j] = min(max(powers[j] / sum(powers.values()), 1e-6), 1 - 1e-6)
        total += positive * sum(-math.log(chance[i, i]) for i in range(len(rows))) / len(rows)
        pushed = [-math.log(1 - chance[i, j]) for i, j in np.argwhere(pairs)]
        total += negative * sum(pushed) / len(pushed) if pushed else 0.0
    return total / 2


def tensors(*arrays):
    return [torch.from_numpy(array) for array in arrays]


def optional(same):
    """What a loss is given: no matrix where nothing is the same."""
    return None if same is NONE else torch.from_numpy(same)


def central_differences(function, at):
    result = np.zeros_like(at)
    for place in np.ndindex(*at.shape):
        step = np.zeros_like(at)
        step[place] = 1e-6
        result[place] = (function(at + step) - function(at - step)) / 2e-6
    return result


@pytest.mark.parametrize("same", [NONE, SAME], ids=["none", "same"])
@pytest.mark.parametrize("scale", [1.0, 20.0])
def test_info_nce_equals_the_loop(same, scale):
    video, text = tensors(VIDEO, TEXT)
    found = info_nce(scale * text @ video.T, optional(same))
    assert float(found) == pytest.approx(naive_info_nce(scale * TEXT @ VIDEO.T, same))


@pytest.mark.parametrize("same", [NONE, SAME], ids=["none", "same"])
def test_info_nce_of_any_scores_equals_the_loop(same):
    scores = 3 * np.random.default_rng(2).normal(size=(6, 6))
    assert float(info_nce(torch.from_numpy(scores), optional(same))) == pytest.approx(naive_info_nce(scores, same))


@pytest.mark.parametrize("same", [NONE, SAME], ids=["none", "same"])
@pytest.mark.parametrize("temperature", [0.05, 1.0])
@pytest.mark.parametrize("pairing", ["own", "swapped", "averaged"])
@pytest.mark.parametrize("direction", ["forward", "reversed"])
def test_bsl_equals_the_loop(same, temperature, pairing, direction):
    video, text = tensors(VIDEO, TEXT)
    found = bsl(video, text, optional(same), temperature=temperature, pairing=pairing, direction=direction)
    expected = naive_bsl(VIDEO, TEXT, same, temperature, pairing, direction)
    assert float(found) == pytest.approx(expected)
    assert expected > 0.01


@pytest.mark.parametrize("same", [NONE, SAME], ids=["none", "same"])
@pytest.mark.parametrize("pairing", ["own", "swapped", "averaged"])
@pytest.mark.parametrize("threshold", [-0.2, 0.3, 0.5])
def test_bsl_with_binary_targets_equals_the_loop(same, pairing, threshold):
    video, text = tensors(VIDEO, TEXT)
    found = bsl(video, text, optional(same), temperature=0.5, pairing=pairing, threshold=threshold)
    assert float(found) == pytest.approx(naive_bsl(VIDEO, TEXT, same, 0.5, pairing, threshold=threshold))
    near = [[len(row) for row in teacher] for teacher in naive_teachers(VIDEO, TEXT, same, 0.5, threshold)]
    assert threshold < 0.5 or any((a == 0) != (b == 0) for a, b in zip(*near, strict=True))


def test_no_gradient_flows_through_the_teacher():
    video, text = (tensor.requires_grad_() for tensor in tensors(VIDEO.copy(), TEXT.copy()))
    bsl(video, text, temperature=0.5).backward()
    fixed = naive_teachers(VIDEO, TEXT, NONE, 0.5, None)
    expected = central_differences(lambda moved: naive_bsl(moved, TEXT, NONE, 0.5, teachers=fixed), VIDEO)
    np.testing.assert_allclose(video.grad.numpy(), expected, atol=1e-7)


@pytest.mark.parametrize("pairing", ["own", "swapped", "averaged"])
@pytest.mark.parametrize("direction", ["forward", "reversed"])
def test_a_live_teacher_learns(pairing, direction):
    video, text = (tensor.requires_grad_() for tensor in tensors(VIDEO.copy(), TEXT.copy()))
    same = torch.from_numpy(SAME)
    bsl(video, text, same, temperature=0.5, teacher="live", pairing=pairing, direction=direction).backward()
    moved = central_differences(lambda moved: naive_bsl(VIDEO, moved, SAME, 0.5, pairing, direction), TEXT)
    np.testing.assert_allclose(text.grad.numpy(), moved, atol=1e-7)
    fixed = naive_teachers(VIDEO, TEXT, SAME, 0.5, None)
    detached = central_differences(
        lambda moved: naive_bsl(VIDEO, moved, SAME, 0.5, pairing, direction, teachers=fixed), TEXT
    )
    assert np.abs(moved - detached).max() > 1e-3


def test_an_infinite_divergence_is_refused():
    with pytest.raises(ConfigError, match="threshold"):
        bsl(*tensors(VIDEO, TEXT), direction="reversed", threshold=0.3)


@pytest.mark.parametrize("same", [NONE, SAME], ids=["none", "same"])
@pytest.mark.parametrize("margin", [0.0, 0.2])
def test_hard_negatives_equal_the_loop(same, margin):
    scores = TEXT @ VIDEO.T + 0.5 * np.eye(6)
    found = hard_negatives(torch.from_numpy(scores), optional(same), margin).numpy()
    np.testing.assert_array_equal(found, naive_hard(scores, same, margin))
    assert 0 < found.sum() < 30 - (SAME.sum() - 6)


@pytest.mark.parametrize("same", [NONE, SAME], ids=["none", "same"])
@pytest.mark.parametrize("scale", [3.0, 100.0])
@pytest.mark.parametrize("weights", [(1.0, 0.5), (0.7, 2.0)])
def test_neg_nce_equals_the_loop(same, scale, weights):
    scores = TEXT @ VIDEO.T + 0.3 * np.eye(6)
    hard = naive_hard(scores, same, 0.0)
    positive, negative = weights
    found = neg_nce(*tensors(scores), scale, *tensors(hard), optional(same), positive=positive, negative=negative)
    assert float(found) == pytest.approx(naive_neg_nce(scores, scale, hard, same, positive, negative))
    assert naive_neg_nce(scores, scale, hard, same, 0.0, 1.0) > 0.01


def test_neg_nce_takes_hard_pairs_of_other_scores_but_never_duplicates():
    scores, refined = TEXT @ VIDEO.T, unit_rows(6, 6, 4)
    hard = naive_hard(refined, NONE, 0.0)
    assert (hard & SAME).any()
    assert (hard != naive_hard(scores, NONE, 0.0)).any()
    found = neg_nce(*tensors(scores), 5.0, *tensors(hard), torch.from_numpy(SAME))
    assert float(found) == pytest.approx(naive_neg_nce(scores, 5.0, hard & ~SAME, SAME, 1.0, 0.5))


def test_neg_nce_without_hard_pairs_is_info_nce():
    scores = TEXT @ VIDEO.T + 2 * np.eye(6)
    hard = hard_negatives(*tensors(scores))
    assert not hard.any()
    assert float(neg_nce(*tensors(scores), 5.0, hard)) == pytest.approx(naive_info_nce(5.0 * scores, NONE))


def test_the_selection_of_hard_pairs_has_no_gradient():
    scores = (TEXT @ VIDEO.T).copy()
    given = torch.from_numpy(scores.copy()).requires_grad_()
    neg_nce(given, 5.0, hard_negatives(given, margin=0.1)).backward()
    hard = naive_hard(scores, NONE, 0.1)
    expected = central_differences(lambda moved: naive_neg_nce(moved, 5.0, hard, NONE, 1.0, 0.5), scores)
    np.testing.assert_allclose(given.grad.numpy(), expected, atol=1e-7)


def every_loss(video, text, same):
    """Name and value of every loss, with all its switches, as training calls it."""
    scores = text @ video.T
    yield "info_nce", info_nce(100.0 * scores, same)
    for margin, scale in itertools.product((0.0, 0.2), (1.0, 100.0)):
        yield "neg_nce", neg_nce(scores, scale, hard_negatives(scores, same, margin), same)
    for teacher, pairing in itertools.product(("detached", "live"), ("own", "swapped", "averaged")):
        for direction, threshold in (("forward", None), ("reversed", None), ("forward", 0.3), ("forward", 0.99)):
            switches = {"teacher": teacher, "pairing": pairing, "direction": direction, "threshold": threshold}
            for temperature in (0.01, 0.05):
                yield f"bsl {switches}", bsl(video, text, same, temperature=temperature, **switches)


ALL, OWN = torch.ones(6, 6, dtype=torch.bool), torch.eye(6, dtype=torch.bool)


@pytest.mark.parametrize(
    ("videos", "texts", "same"),
    [
        pytest.param(VIDEO[:1], TEXT[:1], OWN[:1, :1], id="one row"),
        pytest.param(VIDEO, TEXT[[0] * 6], ALL, id="one caption"),
        pytest.param(VIDEO[[0] * 6], TEXT, ALL, id="one video"),
        pytest.param(VIDEO[[0] * 6], TEXT[[0] * 6], OWN, id="no difference"),
        pytest.param(VIDEO[[0] * 6], TEXT[[0] * 6], None, id="no difference, nothing marked"),
        pytest.param(VIDEO, -VIDEO, torch.from_numpy(SAME), id="opposites"),
        pytest.param(VIDEO, VIDEO, None, id="no gap"),
    ],
)
def test_degenerate_batches_are_finite(videos, texts, same):
    for dtype in (torch.float32, torch.float64):
        given = [torch.tensor(rows, dtype=dtype, requires_grad=True) for rows in (videos, texts)]
        for name, loss in every_loss(*given, same):
            gradients = torch.autograd.grad(loss, given, retain_graph=True, allow_unused=True)
            assert torch.isfinite(loss), name
            assert all(gradient is None or torch.isfinite(gradient).all() for gradient in gradients), name
            if same is not None and same.all():
                # NegNCE's chances end at 1 - 1e-6.
                assert loss.abs() < (2e-6 if name == "neg_nce" else 1e-12), name


def test_the_scale_learns():
    scale = torch.tensor(2.0, requires_grad=True)
    video, text = tensors(VIDEO, TEXT)
    info_nce(scale.exp() * text @ video.T).backward()
    assert scale.grad.abs() > 0


def test_same_rows_are_the_same_video_or_the_same_caption():
    captions = torch.tensor([[1, 2, 0], [1, 2, 3], [1, 2, 0], [4, 5, 6]])
    found = same_rows(torch.tensor([7, 8, 9, 8]), captions)
    expected = {(i, i) for i in range(4)} | {(0, 2), (2, 0), (1, 3), (3, 1)}
    assert {tuple(pair) for pair in found.nonzero().tolist()} == expected
