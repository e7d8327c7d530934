"""TPM-CL against loops over pairs and tokens in float64, written from DMAE's equations."""

import math

import pytest
import torch

from vtr_export.model.attention import unit
from vtr_training.tpm import ReleasedTokenImportance, TokenImportance, TpmLoss, mask_informative

D, L, N = 8, 7, 5


def draw(batch=6, seed=0):
    """Pair 1 has one word, pair 2 one frame, pair 3 padding on both sides, pair 4 a hole in the frames."""
    generator = torch.Generator().manual_seed(seed)
    text, words, frames = (
        unit(torch.randn(*shape, D, dtype=torch.float64, generator=generator))
        for shape in ((batch,), (batch, L), (batch, N))
    )
    word_mask, frame_mask = torch.ones(batch, L, dtype=torch.bool), torch.ones(batch, N, dtype=torch.bool)
    word_mask[:, 0] = False
    for pair in range(batch):
        if pair == 1:
            word_mask[pair, 2:] = False
        if pair == 2:
            frame_mask[pair, 1:] = False
        if pair == 3:
            word_mask[pair, 4:], frame_mask[pair, 3:] = False, False
        if pair == 4:
            frame_mask[pair, 2] = False
    return text, words * word_mask.unsqueeze(2), word_mask, frames * frame_mask.unsqueeze(2), frame_mask


def build(seed=1, **settings):
    loss = TpmLoss(D, **({"frames": N, "words": L} | settings)).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in loss.parameters():
            parameter.add_(torch.randn(parameter.shape, dtype=torch.float64, generator=generator))
    return loss


# The equations, one token at a time.


def gelu(x):
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def naive_scores(network, joined):
    """Linear, GELU, linear, sigmoid, over the sum; `joined` is already normalised."""
    first, second = network[1].weight, network[3].weight
    scores = [1 / (1 + torch.exp(-(second[0] @ gelu(first @ x)))) for x in joined]
    return [score / sum(scores) for score in scores]


def naive_importance(predictor, queries, keys):
    """Queries and keys: lists of the visible tokens [D]."""
    norm, joined = predictor.network[0], []
    for key in keys:
        x = torch.cat([sum(queries) / len(queries), key])
        centred = (x - x.mean()) / ((x - x.mean()) ** 2).mean().add(1e-5).sqrt()
        joined.append(centred * norm.weight + norm.bias)
    return naive_scores(predictor.network, joined)


def naive_released_importance(predictor, queries, keys):
    norm, mix = predictor.network[0], predictor.mix.weight
    block = [torch.cat([sum(mix[k, q] * queries[q] for q in range(len(queries))), keys[k]]) for k in range(len(keys))]
    x = torch.stack(block)
    centred = (x - x.mean()) / ((x - x.mean()) ** 2).mean().add(1e-5).sqrt()
    return naive_scores(predictor.network, list(centred * norm.weight + norm.bias))


def naive_kept(importance, tau):
    total, kept = 0.0, []
    for place in sorted(range(len(importance)), key=lambda j: -importance[j].item()):
        total += importance[place].item()
        if total >= tau:
            kept.append(place)
    return sorted(kept)


def norm(x):
    return x / (x @ x).sqrt()


def naive_loss(loss, batch, triplets=(1, 2, 3), margin=0.1, tau=0.6):
    total = 0.0
    for t, words, word_mask, frames, frame_mask in zip(*batch, strict=True):
        w = [word for word, shown in zip(words, word_mask, strict=True) if shown]
        f = [frame for frame, shown in zip(frames, frame_mask, strict=True) if shown]
        p_v = naive_importance(loss.frame_importance, [t], f)
        p_t = naive_importance(loss.word_importance, f, w)
        t_g = norm(sum(p * x for p, x in zip(p_t, w, strict=True)))
        t_part = norm(sum(p_t[i] * w[i] for i in naive_kept(p_t, tau)))
        kept = naive_kept(p_v, tau)
        rest = [1 - p_v[j] for j in kept] if len(f) > 1 else [1.0]

        def full(x, f=f):
            products = [x @ frame for frame in f]
            return (max(products) + sum(products) / len(products)) / 2

        def masked(x, f=f, kept=kept, rest=rest):
            products = [x @ f[j] for j in kept]
            mean = sum(r * product for r, product in zip(rest, products, strict=True)) / sum(rest)
            return (max(products) + mean) / 2

        gaps = {1: full(t) - masked(t), 2: full(t_g) - masked(t_g), 3: full(t_g) - full(t_part)}
        total = total + sum((margin - gaps[k]).clamp_min(0) for k in triplets) / len(batch[0])
    return total


def naive_released_loss(loss, batch, words_count, frames_count, margin, tau=0.6):
    total = 0.0
    for t, words, word_mask, frames, frame_mask in zip(*batch, strict=True):
        zero = torch.zeros(D, dtype=torch.float64)
        w = [words[i] if i < len(words) and word_mask[i] else zero for i in range(words_count)]
        f = [frames[j] if j < len(frames) and frame_mask[j] else zero for j in range(frames_count)]
        seen = sum(bool(frame.any()) for frame in f)
        p_v = naive_released_importance(loss.frame_importance, [t], f)
        p_t = naive_released_importance(loss.word_importance, f, w)
        t_g = norm(sum(p * x for p, x in zip(p_t, w, strict=True)))
        t_part = sum((p_t[i] * w[i] for i in naive_kept(p_t, tau)), zero)
        kept = naive_kept(p_v, tau)
        partial = [f[j] if j in kept else zero for j in range(frames_count)]

        def score(x, frames, seen=seen):
            products = [x @ frame for frame in frames]
            return (max(products) + sum(products) / seen) / 2

        gaps = (score(t, f) - score(t, partial), score(t_g, f) - score(t_g, partial), score(t_g, f) - score(t_part, f))
        total = total + sum((margin - gap).clamp_min(0) for gap in gaps) / len(batch[0])
    return total


def test_importance_equals_the_loop():
    _, words, word_mask, frames, frame_mask = draw()
    predictor = build().word_importance
    assert isinstance(predictor, TokenImportance)
    found = predictor(frames, frame_mask, words, word_mask)
    for b in range(len(words)):
        expected = naive_importance(predictor, list(frames[b, frame_mask[b]]), list(words[b, word_mask[b]]))
        assert torch.allclose(found[b, word_mask[b]], torch.stack(expected), rtol=0, atol=1e-12)
        assert not found[b, ~word_mask[b]].any()
    assert torch.allclose(found.sum(dim=1), torch.ones(len(words), dtype=torch.float64))


def test_released_importance_equals_the_loop():
    _, words, word_mask, frames, frame_mask = draw()
    predictor = build(release=True).word_importance
    assert isinstance(predictor, ReleasedTokenImportance)
    found = predictor(frames, frame_mask, words, word_mask)
    for b in range(len(words)):
        expected = naive_released_importance(predictor, list(frames[b]), list(words[b]))
        assert torch.allclose(found[b], torch.stack(expected), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("importance", "tau", "kept"),
    [
        ([0.1, 0.5, 0.15, 0.25], 0.6, [0, 2, 3]),  # 0.5 goes; 0.25 reaches 0.75 and stays
        ([0.1, 0.5, 0.15, 0.25], 0.8, [0, 2]),
        ([0.1, 0.7, 0.1, 0.1], 0.6, [0, 1, 2, 3]),  # one token reaches it at once
        ([0.25, 0.25, 0.5, 0.0], 0.5, [0, 1, 2]),  # exactly tau is not below it; the last is masked
        ([1.0, 0.0, 0.0, 0.0], 0.6, [0]),
        ([0.3, 0.4, 0.1, 0.2], 1.0, [2]),
    ],
)
def test_adaptive_masking(importance, tau, kept):
    p = torch.tensor([importance], dtype=torch.float64)
    assert mask_informative(p, p > 0, tau)[0].nonzero().flatten().tolist() == kept


def test_the_importance_of_a_masked_token_is_not_looked_at():
    p, mask = torch.tensor([[0.5, 7.0, 0.3, 0.2]]), torch.tensor([[True, False, True, True]])
    assert mask_informative(p, mask, 0.6)[0].tolist() == [False, False, True, True]


def test_something_is_left_where_rounding_never_reaches_tau():
    p = torch.full((1, 37), (1 - 1e-6) / 37)
    assert mask_informative(p, torch.ones(1, 37, dtype=torch.bool), 1.0).sum() == 1


@pytest.mark.parametrize("triplets", [(1,), (2,), (3,), (1, 2), (3, 1, 2)])
@pytest.mark.parametrize(("margin", "tau"), [(0.1, 0.6), (0.6, 0.4)])
def test_the_loss_equals_the_loop(triplets, margin, tau):
    loss = build(triplets=triplets, margin=margin, tau=tau)
    for seed in range(3):
        batch = draw(seed=seed)
        found, expected = loss(*batch), naive_loss(loss, batch, triplets, margin, tau)
        assert found.item() == pytest.approx(expected.item(), abs=1e-9)
        assert found > 1e-3


@pytest.mark.parametrize(("words", "frames"), [(L, N), (L + 3, N + 2), (4, 3)])
def test_the_released_loss_equals_the_loop(words, frames):
    """With as many tokens as the predictors were built for, with fewer, and with more."""
    loss = build(release=True, words=words, frames=frames, margin=0.6)
    batch = draw()
    expected = naive_released_loss(loss, batch, words, frames, 0.6)
    assert loss(*batch).item() == pytest.approx(expected.item(), abs=1e-9)


def test_gradients_equal_those_of_the_loop_and_reach_every_parameter():
    loss, batch = build(), draw()
    loss(*batch).backward()
    found = {name: parameter.grad.clone() for name, parameter in loss.named_parameters()}
    loss.zero_grad()
    naive_loss(loss, batch).backward()
    for name, parameter in loss.named_parameters():
        assert torch.allclose(found[name], parameter.grad, rtol=0, atol=1e-9), name
        assert parameter.grad.abs().max() > 1e-6, name


def test_the_released_importance_of_frames_learns_nothing():
    loss, batch = build(release=True), draw()
    loss(*batch).backward()
    assert all(parameter.grad is None for parameter in loss.frame_importance.parameters())
    assert all(parameter.grad.abs().max() > 0 for parameter in loss.word_importance.parameters())


def test_padding_changes_nothing():
    text, words, word_mask, frames, frame_mask = draw()
    loss = build()
    expected = loss(text, words, word_mask, frames, frame_mask)
    words, frames = words.clone(), frames.clone()
    words[~word_mask], frames[~frame_mask] = torch.nan, torch.inf
    given = [words.requires_grad_(), frames.requires_grad_()]
    found = loss(text, words, word_mask, frames, frame_mask)
    assert torch.equal(found, expected)
    for gradient, mask in zip(torch.autograd.grad(found, given), (word_mask, frame_mask), strict=True):
        assert torch.isfinite(gradient).all()
        assert not gradient[~mask].any()
        assert gradient[mask].any()


def test_padded_equals_unpadded_and_pairs_do_not_mix():
    loss, batch = build(), draw()
    alone = []
    for text, words, word_mask, frames, frame_mask in zip(*batch, strict=True):
        shown, seen = words[word_mask][None], frames[frame_mask][None]
        every = [torch.ones(1, part.shape[1], dtype=torch.bool) for part in (shown, seen)]
        alone.append(loss(text[None], shown, every[0], seen, every[1]))
    assert torch.allclose(loss(*batch), torch.stack(alone).mean(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("release", [False, True])
@pytest.mark.parametrize("case", ["one pair", "one caption", "one video", "all alike", "single tokens"])
def test_degenerate_batches_are_finite(release, case):
    text, words, word_mask, frames, frame_mask = draw()
    if case == "one pair":
        text, words, word_mask, frames, frame_mask = (part[:1] for part in draw())
    if case == "one caption":
        text, words, word_mask = (part[:1].repeat(6, *[1] * (part.ndim - 1)) for part in (text, words, word_mask))
    if case == "one video":
        frames, frame_mask = frames[:1].repeat(6, 1, 1), frame_mask[:1].repeat(6, 1)
    if case == "all alike":
        words, frames = text[:1].expand(6, L, D), text[:1].expand(6, N, D)
        text = text[:1].expand(6, D)
    if case == "single tokens":
        word_mask, frame_mask = torch.arange(L).expand(6, L) == 1, torch.arange(N).expand(6, N) == 0
    loss = build(release=release).float()
    given = [part.float().clone().requires_grad_() for part in (text, words, frames)]
    value = loss(given[0], given[1], word_mask, given[2], frame_mask)
    value.backward()
    assert torch.isfinite(value)
    gradients = [part.grad for part in (*given, *loss.parameters())]
    assert all(gradient is None or torch.isfinite(gradient).all() for gradient in gradients)
