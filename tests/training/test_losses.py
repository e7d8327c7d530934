"""Losses against loops in float64."""

import math

import numpy as np
import pytest
import torch

from vtr_training.losses import bsl, info_nce, same_rows


def unit_rows(count, width, seed):
    rows = np.random.default_rng(seed).normal(size=(count, width))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


VIDEO, TEXT = unit_rows(6, 5, 0), unit_rows(6, 5, 1)
SAME = np.eye(6, dtype=bool)
SAME[1, 4] = SAME[4, 1] = SAME[2, 3] = SAME[3, 2] = True


def naive_info_nce(video, text, scale, same):
    total = 0.0
    for queries, gallery in ((text, video), (video, text)):
        for i in range(len(queries)):
            kept = [j for j in range(len(gallery)) if j == i or not same[i][j]]
            chances = {j: math.exp(scale * float(queries[i] @ gallery[j])) for j in kept}
            total -= math.log(chances[i] / sum(chances.values())) / len(queries)
    return total / 2


def naive_bsl(video, text, same, temperature):
    total = 0.0
    for own, other in ((video, text), (text, video)):
        for i in range(len(own)):
            kept = [j for j in range(len(own)) if j != i and not same[i][j]]
            if not kept:
                continue
            q = [math.exp(float(own[i] @ own[j]) / temperature) for j in kept]
            p = [math.exp(float(own[i] @ other[j]) / temperature) for j in kept]
            terms = zip(q, p, strict=True)
            total += sum(a / sum(q) * math.log((a / sum(q)) / (b / sum(p))) for a, b in terms) / len(own)
    return total / 2


def tensors(*arrays):
    return [torch.from_numpy(array) for array in arrays]


@pytest.mark.parametrize("same", [None, SAME])
@pytest.mark.parametrize("scale", [1.0, 20.0])
def test_info_nce_equals_the_loop(same, scale):
    video, text = tensors(VIDEO, TEXT)
    found = info_nce(video, text, scale, None if same is None else torch.from_numpy(same))
    assert float(found) == pytest.approx(naive_info_nce(VIDEO, TEXT, scale, np.eye(6) if same is None else same))


@pytest.mark.parametrize("same", [None, SAME])
@pytest.mark.parametrize("temperature", [0.05, 1.0])
def test_bsl_equals_the_loop(same, temperature):
    video, text = tensors(VIDEO, TEXT)
    found = bsl(video, text, None if same is None else torch.from_numpy(same), temperature=temperature)
    expected = naive_bsl(VIDEO, TEXT, np.eye(6) if same is None else same, temperature)
    assert float(found) == pytest.approx(expected)
    assert expected > 0.01


def test_no_gradient_flows_through_the_teacher():
    """Central differences of the loop in which the teacher keeps the embeddings of before."""
    video, text = (tensor.requires_grad_() for tensor in tensors(VIDEO.copy(), TEXT.copy()))
    bsl(video, text, temperature=0.5).backward()

    def with_fixed_teacher(moved):
        total = 0.0
        for teacher, own, other in ((VIDEO, moved, TEXT), (TEXT, TEXT, moved)):
            for i in range(6):
                kept = [j for j in range(6) if j != i]
                q = np.exp([teacher[i] @ teacher[j] / 0.5 for j in kept])
                p = np.exp([own[i] @ other[j] / 0.5 for j in kept])
                total += float((q / q.sum() * np.log(q / q.sum() / (p / p.sum()))).sum()) / 6
        return total / 2

    expected = np.zeros_like(VIDEO)
    for place in np.ndindex(*VIDEO.shape):
        step = np.zeros_like(VIDEO)
        step[place] = 1e-6
        expected[place] = (with_fixed_teacher(VIDEO + step) - with_fixed_teacher(VIDEO - step)) / 2e-6
    np.testing.assert_allclose(video.grad.numpy(), expected, atol=1e-7)


def test_rows_without_neighbours_are_neither_nan_nor_counted():
    video, text = (tensor.float().requires_grad_() for tensor in tensors(VIDEO, TEXT))
    same = torch.ones(6, 6, dtype=torch.bool)
    loss = bsl(video, text, same) + info_nce(video, text, 100.0, same)
    loss.backward()
    assert loss.item() == 0
    assert torch.isfinite(video.grad).all()


def test_the_scale_learns():
    scale = torch.tensor(2.0, requires_grad=True)
    info_nce(*tensors(VIDEO, TEXT), scale.exp()).backward()
    assert scale.grad.abs() > 0


def test_same_rows_are_the_same_video_or_the_same_caption():
    captions = torch.tensor([[1, 2, 0], [1, 2, 3], [1, 2, 0], [4, 5, 6]])
    found = same_rows(torch.tensor([7, 8, 9, 8]), captions)
    expected = {(i, i) for i in range(4)} | {(0, 2), (2, 0), (1, 3), (3, 1)}
    assert {tuple(pair) for pair in found.nonzero().tolist()} == expected
