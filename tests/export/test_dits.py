"""The truncated sampler against equation 8 in a loop, in float64, and against PyTorch's own attention."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vtr_export.model import AlignmentConfig, redraw_zero_parameters
from vtr_export.model.alignment_network import time_features
from vtr_export.model.dits import Sampler, without_evaluation_noise
from vtr_export.model.schedule import EVALUATION_SEED, Schedule

D = 64


def build(*, redrawn: bool = True, **settings: Any) -> Sampler:
    torch.manual_seed(0)
    sampler = Sampler(D, AlignmentConfig(kind="dits", **{"heads": 4, **settings})).eval()
    if redrawn:
        redraw_zero_parameters(sampler, seed=1)
    return sampler


def texts(rows: int = 5) -> Tensor:
    return torch.randn(rows, D, generator=torch.Generator().manual_seed(2))


def naive_chi(k: int, steps: int, first: float, last: float) -> float:
    """chi_k = (1 - alpha_k) / sqrt(alpha_k - alpha_k abar_k), as the paper prints it."""
    betas = [first if steps == 1 else first + (last - first) * i / (steps - 1) for i in range(steps)]
    abar = math.prod(1 - beta for beta in betas[:k])
    alpha = 1 - betas[k - 1]
    return (1 - alpha) / math.sqrt(alpha - alpha * abar)


def naive_time(k: int) -> Tensor:
    angles = [k * 10000 ** (-i / 128) for i in range(128)]
    return torch.tensor([math.cos(a) for a in angles] + [math.sin(a) for a in angles], dtype=torch.float64)


def silu(x: Tensor) -> Tensor:
    return x / (1 + torch.exp(-x))


def layer_norm(x: Tensor) -> Tensor:
    centred = x - x.mean()
    return centred / (centred.pow(2).mean() + 1e-6).sqrt()


def naive_network(network: Any, v: Tensor, k: int, t: Tensor | None = None) -> Tensor:
    """eps(v_k, k) of one sample, its attention by torch.nn.MultiheadAttention over a sequence of one; t is its text
    condition."""
    c = network.time[2](silu(network.time[0](naive_time(k))))
    if t is not None:
        c = c + network.text.weight @ t + network.text.bias
    x = network.latent(v)
    for block in network.blocks:
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = block.ada_ln(silu(c)).split(D)
        attention = nn.MultiheadAttention(D, 4, batch_first=True).double().eval()
        attention.load_state_dict(block.attn.state_dict())
        token = (layer_norm(x) * (1 + scale_1) + shift_1).reshape(1, 1, D)
        x = x + gate_1 * attention(token, token, token, need_weights=False)[0].reshape(D)
        hidden = block.mlp.c_fc(layer_norm(x) * (1 + scale_2) + shift_2)
        hidden = 0.5 * hidden * (1 + torch.tanh(math.sqrt(2 / math.pi) * (hidden + 0.044715 * hidden**3)))
        x = x + gate_2 * block.mlp.c_proj(hidden)
    shift, scale = network.final.ada_ln(silu(c)).split(D)
    result: Tensor = network.final.linear(layer_norm(x) * (1 + scale) + shift)
    return result


@pytest.mark.parametrize(
    "settings",
    [
        {"steps": 1},
        {"steps": 3, "start": "normalised"},
        {"steps": 10, "blocks": 2},
        {"steps": 3, "condition": "text"},
        {"steps": 3, "condition": "text", "start": "normalised", "blocks": 1},
        {"steps": 3, "gap": "t-v"},
    ],
)
@torch.no_grad()
def test_the_walk_is_equation_8(settings: dict[str, Any]) -> None:
    sampler = build(**settings).double()
    sampler.time_features = torch.stack([naive_time(k) for k in range(1, settings["steps"] + 1)])
    t = texts(3).double()
    latents = sampler.trajectory(t)
    assert len(latents) == settings["steps"] + 1
    for row in range(3):
        of_norm_1 = "normalised" in settings.values() or "t-v" in settings.values()
        v = t[row] / t[row].norm() if of_norm_1 else t[row]
        assert torch.allclose(latents[0][row], v, atol=1e-12)
        condition = v if "condition" in settings else None
        for done, k in enumerate(range(settings["steps"], 0, -1), start=1):
            v = v - naive_chi(k, settings["steps"], 0.1, 0.99) * naive_network(sampler.network, v, k, condition)
            assert torch.allclose(latents[done][row], v, atol=1e-9), f"step {k}"
    assert torch.equal(sampler(t), latents[-1])


def test_step_sizes_are_those_of_the_schedule() -> None:
    for steps, first, last in ((1, 0.1, 0.99), (5, 0.1, 0.99), (10, 0.1, 0.99), (7, 0.02, 0.5)):
        expected = [naive_chi(k, steps, first, last) for k in range(1, steps + 1)]
        assert Schedule.linear(steps, first, last).chi == pytest.approx(expected, rel=1e-12)
    # Computed apart from this code, to two places.
    ten = [0.33, 0.42, 0.51, 0.61, 0.76, 0.96, 1.26, 1.74, 2.70, 9.90]
    assert Schedule.linear(10, 0.1, 0.99).chi == pytest.approx(ten, abs=0.006)
    assert Schedule.linear(5, 0.1, 0.99).chi == pytest.approx([0.33, 0.63, 0.95, 1.65, 9.90], abs=0.006)


def test_time_features_are_sinusoids() -> None:
    expected = torch.stack([naive_time(k) for k in range(1, 41)])
    assert torch.allclose(time_features(40).double(), expected, atol=1e-6)
    assert time_features(40).dtype == torch.float32


def test_the_network_has_the_papers_size() -> None:
    sampler = Sampler(512, AlignmentConfig(kind="dits"))
    total = sum(parameter.numel() for parameter in sampler.parameters())
    assert total / 1e6 == pytest.approx(20.35, abs=0.01)
    assert sum(p.numel() for p in sampler.network.blocks[0].parameters()) == 4_726_272


@torch.no_grad()
def test_a_fresh_sampler_is_the_identity_and_a_redrawn_one_is_not() -> None:
    t = texts()
    assert torch.equal(build(redrawn=False)(t), t)
    normalised: dict[str, Any] = {"steps": 10, "start": "normalised"}
    for settings in ({"steps": 1}, {"steps": 5}, {"steps": 10}, normalised, {"steps": 3, "condition": "text"}):
        moved = build(**settings)(t)
        cosine = torch.cosine_similarity(moved, t)
        assert cosine.max() < 0.7, settings
        length = 1.0 if settings.get("start") == "normalised" else math.sqrt(D)
        assert (moved.norm(dim=-1) < 10 * length).all()  # moved, not thrown
    assert build(steps=5)(t).std(dim=0).min() > 0.05  # and the walk still depends on the text


@torch.no_grad()
def test_samples_never_mix() -> None:
    sampler = build()
    t = texts()
    together = sampler(t)
    alone = torch.cat([sampler(t[i : i + 1]) for i in range(5)])
    scale = together.abs().max()
    assert (together - alone).abs().max() < 1e-6 * scale
    assert (sampler(t.flip(0)).flip(0) - together).abs().max() < 1e-6 * scale


@torch.no_grad()
def test_folded_modulations_give_the_same_walk() -> None:
    sampler = build(steps=3)
    tables = sampler.modulations(texts())
    assert [tuple(table.shape) for table in tables] == [(3, 6 * D)] * 4 + [(3, 2 * D)]
    assert torch.equal(sampler.walk(texts(), tables)[-1], sampler(texts()))


@pytest.mark.parametrize("settings", [{}, {"condition": "text"}, {"noise": "sqrt-beta"}], ids=str)
def test_every_parameter_has_a_gradient(settings: dict[str, Any]) -> None:
    sampler = build(steps=2, **settings).train()
    sampler(texts()).square().sum().backward()
    assert all(parameter.grad is not None for parameter in sampler.parameters())
    attention: Any = sampler.network.blocks[0].attn
    assert attention.in_proj_weight.grad[2 * D :].any()
    assert not attention.in_proj_weight.grad[: 2 * D].any()  # one key: the softmax is constant


@torch.no_grad()
def test_a_text_condition_modulates_every_step() -> None:
    """Two texts, one latent: the modulations differ, and the walks are those of each text alone."""
    sampler = build(steps=3, condition="text")
    t = texts(2)
    for table, width in zip(sampler.modulations(t), (6, 6, 6, 6, 2), strict=True):
        assert table.shape == (2, 3, width * D)
        assert (table[0] - table[1]).abs().amax(dim=-1).min() > 1e-3
    alone = torch.cat([sampler(t[:1]), sampler(t[1:])])
    assert torch.allclose(sampler(t), alone, rtol=0, atol=1e-5 * float(alone.abs().max()))


@pytest.mark.parametrize("training", [True, False])
@torch.no_grad()
def test_noise_is_that_of_equation_8(training: bool) -> None:
    """sqrt(beta_k) z for k = T' ... 2, none at k = 1, drawn from the global generator in training alone."""
    steps = 4
    switch = {"noise": "sqrt-beta"} if training else {"eval_noise": "sqrt-beta"}
    sampler = build(steps=steps, **switch).double().train(training)
    sampler.time_features = torch.stack([naive_time(k) for k in range(1, steps + 1)])
    t = texts(3).double()
    torch.manual_seed(7)
    latents = sampler.trajectory(t)
    draws = torch.Generator().manual_seed(7 if training else EVALUATION_SEED)
    v = t.clone()
    for done, k in enumerate(range(steps, 0, -1), start=1):
        moved = [naive_network(sampler.network, row, k) for row in v]
        v = v - naive_chi(k, steps, 0.1, 0.99) * torch.stack(moved)
        if k > 1:
            beta = 0.1 + (0.99 - 0.1) * (k - 1) / (steps - 1)
            v = v + math.sqrt(beta) * torch.randn(3, D, generator=draws).double()
        assert torch.allclose(latents[done], v, atol=1e-6), f"step {k}"


@torch.no_grad()
def test_noise_has_its_deviation_and_its_switches() -> None:
    """A fresh network adds nothing, so v_0 - t is the noise alone: of variance beta_2 + ... + beta_T' per channel."""
    t = texts(400)
    for training in (True, False):
        both = {"noise": "sqrt-beta", "eval_noise": "sqrt-beta"}
        sampler = build(redrawn=False, steps=5, **both).train(training)
        added = sampler(t) - t
        expected = math.sqrt(sum(0.1 + (0.99 - 0.1) * i / 4 for i in range(1, 5)))
        assert added.std().item() == pytest.approx(expected, rel=0.02)
        assert added.mean().abs().item() < 0.05
        again = sampler(t) - t
        assert torch.equal(added, again) is not training  # evaluation repeats itself, training does not
        off = build(redrawn=False, steps=5, **{"eval_noise" if training else "noise": "sqrt-beta"}).train(training)
        assert torch.equal(off(t), t)
    one = build(redrawn=False, steps=1, noise="sqrt-beta").train()
    assert torch.equal(one(t), t)  # one step is the last, and has none


@torch.no_grad()
def test_evaluation_leaves_the_global_generator_alone() -> None:
    sampler = build(steps=3, eval_noise="sqrt-beta")
    before = torch.get_rng_state()
    sampler(texts())
    assert torch.equal(torch.get_rng_state(), before)


@torch.no_grad()
def test_evaluation_noise_can_be_switched_off_for_good() -> None:
    noisy, plain = build(steps=3, eval_noise="sqrt-beta"), build(steps=3)
    assert not torch.allclose(noisy(texts()), plain(texts()), atol=0.1)
    without_evaluation_noise(nn.ModuleDict({"text": noisy}))
    assert torch.equal(noisy(texts()), plain(texts()))


def test_redrawing_is_seeded_and_names_what_it_drew() -> None:
    first, second, other = (build(redrawn=False) for _ in range(3))
    names = redraw_zero_parameters(first, seed=3)
    assert names == redraw_zero_parameters(second, seed=3)
    redraw_zero_parameters(other, seed=4)
    assert {"network.final.linear.weight", "network.blocks.0.ada_ln.weight", "network.latent.bias"} <= set(names)
    assert "network.latent.weight" not in names
    assert torch.equal(first.network.final.linear.weight, second.network.final.linear.weight)
    assert not torch.equal(first.network.final.linear.weight, other.network.final.linear.weight)
    assert all(parameter.any() for parameter in first.parameters())
    assert redraw_zero_parameters(first, seed=3) == []
