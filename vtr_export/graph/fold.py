"""A sampler with everything folded that does not depend on what is embedded.

The time embedding and each adaLN shift, scale and gate depend on the step alone, so they become constants; shift and
scale join the LayerNorm before them as its bias and weight. Under a text condition they depend on the sentence, and the
time embedding alone becomes a constant. Attention over one token is its value and output projections, which become one
matrix. Weights that the steps share stay shared. A folded sampler draws no noise."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..model.alignment_network import DiTBlock, SelfAttentionOfOne
from ..model.attention import unit
from ..model.dits import Sampler, Walk
from ..model.text_tower import TextTower
from ..model.video_tower import VideoTower
from .rebuild import with_parts

Tower = TypeVar("Tower", TextTower, VideoTower)


def fold_text_tower(tower: TextTower) -> TextTower:
    """The same function of the ids as `tower`, to rounding and without noise, its sampler folded; another head stays as
    it is. The weights are shared with the tower given."""
    return _fold(tower)


def fold_video_tower(tower: VideoTower) -> VideoTower:
    """The same function of frames and mask as `tower`, as fold_text_tower."""
    return _fold(tower)


def _fold(tower: Tower) -> Tower:
    head = tower.alignment
    return (with_parts(tower, alignment=fold_sampler(head)) if isinstance(head, Sampler) else tower).eval()


def fold_sampler(sampler: Sampler) -> Walk:
    return (_fold_conditioned(sampler) if sampler.network.text is not None else FoldedSampler(sampler)).eval()


class FoldedSampler(Walk):
    """Embeddings [B, D] -> the walk v_T', ..., v_0 of an unconditioned Sampler, for inference only."""

    def __init__(self, sampler: Sampler) -> None:
        super().__init__()
        self.start, self.schedule = sampler.start, sampler.schedule
        network = sampler.network
        self.latent, self.final = network.latent, network.final.linear
        self.values = nn.ModuleList(_fold_attention(block.attn) for block in _blocks(network.blocks))
        self.mlps = nn.ModuleList(block.mlp for block in _blocks(network.blocks))
        with torch.no_grad():
            *blocks, final = network.modulations(sampler.time_features)
            for k in range(1, self.schedule.steps + 1):
                for b, table in enumerate(blocks):
                    shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = table[k - 1].chunk(6)
                    self._keep(f"{k}_{b}_attention", shift_1, scale_1, gate_1)
                    self._keep(f"{k}_{b}_mlp", shift_2, scale_2, gate_2)
                self._keep(f"{k}_final", *final[k - 1].chunk(2))

    def _keep(self, name: str, shift: Tensor, scale: Tensor, gate: Tensor | None = None) -> None:
        constants = {"weight": 1.0 + scale, "bias": shift, "gate": gate}
        for part, value in constants.items():
            if value is not None:
                self.register_buffer(f"step_{name}_{part}", value.clone())

    def _constant(self, name: str, part: str) -> Tensor:
        return self.get_buffer(f"step_{name}_{part}")

    def _norm(self, x: Tensor, name: str) -> Tensor:
        weight, bias = self._constant(name, "weight"), self._constant(name, "bias")
        return F.layer_norm(x, (x.shape[-1],), weight, bias, eps=1e-6)

    def _bias_of_gap(self, latents: Tensor, k: int) -> Tensor:
        x = self.latent(latents)
        for b, (value, mlp) in enumerate(zip(self.values, self.mlps, strict=True)):
            x = x + self._constant(f"{k}_{b}_attention", "gate") * value(self._norm(x, f"{k}_{b}_attention"))
            x = x + self._constant(f"{k}_{b}_mlp", "gate") * mlp(self._norm(x, f"{k}_{b}_mlp"))
        return self.final(self._norm(x, f"{k}_final"))  # type: ignore[no-any-return]

    def trajectory(self, embeddings: Tensor) -> list[Tensor]:
        latents = [unit(embeddings) if self.start == "normalised" else embeddings]
        for k in range(self.schedule.steps, 0, -1):
            latents.append(latents[-1] - self.schedule.chi[k - 1] * self._bias_of_gap(latents[-1], k))
        return latents


class _Constant(nn.Module):
    """Gives the same, whatever it is given."""

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.value: Tensor
        self.register_buffer("value", value)

    def forward(self, _: Tensor) -> Tensor:
        return self.value


def _fold_conditioned(sampler: Sampler) -> Sampler:
    network = sampler.network
    with torch.no_grad():
        time = _Constant(network.time(sampler.time_features))
    blocks = nn.ModuleList(with_parts(block, attn=_fold_attention(block.attn)) for block in _blocks(network.blocks))
    folded = with_parts(sampler, network=with_parts(network, time=time, blocks=blocks))
    folded.noise_in_evaluation = False
    return folded


def _blocks(blocks: nn.ModuleList) -> list[DiTBlock]:
    return [block for block in blocks if isinstance(block, DiTBlock)]


def _fold_attention(attention: SelfAttentionOfOne) -> nn.Linear:
    """W_o (W_v x + b_v) + b_o as one layer; the product is taken in float64."""
    width = attention.width
    value_weight, value_bias = (
        attention.in_proj_weight[2 * width :].double(),
        attention.in_proj_bias[2 * width :].double(),
    )
    out_weight, out_bias = attention.out_proj.weight.double(), attention.out_proj.bias.double()
    folded = nn.Linear(width, width)
    with torch.no_grad():
        folded.weight.copy_(out_weight @ value_weight)
        folded.bias.copy_(out_weight @ value_bias + out_bias)
    return folded
