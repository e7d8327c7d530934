"""The truncated sampler against equation 8 in a loop, in float64, and against PyTorch's own attention."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vtr_export.model import AlignmentConfig, redraw_zero_parameters
from vtr_export.model.dits import Sampler, step_sizes, time_features

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


def naive_network(network: Any, v: Tensor, k: int) -> Tensor:
    """eps(v_k, k) of one sample, its attention by torch.nn.MultiheadAttention over a sequence of one."""
    c = network.time[2](silu(network.time[0](naive_time(k))))
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


@pytest.mark.parametrize("settings", [{"steps": 1}, {"steps": 3, "start": "normalised"}, {"steps": 10, "blocks": 2}])
@torch.no_grad()
def test_the_walk_is_equation_8(settings: dict[str, Any]) -> None:
    sampler = build(**settings).double()
    sampler.time_features = torch.stack([naive_time(k) for k in range(1, settings["steps"] + 1)])
    t = texts(3).double()
    latents = sampler.trajectory(t)
    assert len(latents) == settings["steps"] + 1
    for row in range(3):
        v = t[row] / t[row].norm() if settings.get("start") == "normalised" else t[row]
        assert torch.allclose(latents[0][row], v, atol=1e-12)
        for done, k in enumerate(range(settings["steps"], 0, -1), start=1):
            v = v - naive_chi(k, settings["steps"], 0.1, 0.99) * naive_network(sampler.network, v, k)
            assert torch.allclose(latents[done][row], v, atol=1e-9), f"step {k}"
    assert torch.equal(sampler(t), latents[-1])


def test_step_sizes_are_those_of_the_schedule() -> None:
    for steps, first, last in ((1, 0.1, 0.99), (5, 0.1, 0.99), (10, 0.1, 0.99), (7, 0.02, 0.5)):
        expected = [naive_chi(k, steps, first, last) for k in range(1, steps + 1)]
        assert step_sizes(steps, first, last) == pytest.approx(expected, rel=1e-12)
    # Computed apart from this code, to two places.
    ten = [0.33, 0.42, 0.51, 0.61, 0.76, 0.96, 1.26, 1.74, 2.70, 9.90]
    assert step_sizes(10, 0.1, 0.99) == pytest.approx(ten, abs=0.006)
    assert step_sizes(5, 0.1, 0.99) == pytest.approx([0.33, 0.63, 0.95, 1.65, 9.90], abs=0.006)


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
    for settings in ({"steps": 1}, {"steps": 5}, {"steps": 10}, {"steps": 10, "start": "normalised"}):
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
    tables = sampler.modulations()
    assert [tuple(table.shape) for table in tables] == [(3, 6 * D)] * 4 + [(3, 2 * D)]
    assert torch.equal(sampler.walk(texts(), tables)[-1], sampler(texts()))


def test_every_parameter_has_a_gradient() -> None:
    sampler = build(steps=2)
    sampler(texts()).square().sum().backward()
    assert all(parameter.grad is not None for parameter in sampler.parameters())
    attention: Any = sampler.network.blocks[0].attn
    assert attention.in_proj_weight.grad[2 * D :].any()
    assert not attention.in_proj_weight.grad[: 2 * D].any()  # one key: the softmax is constant


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
