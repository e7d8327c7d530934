"""The sampler with everything folded that does not depend on the sentence.

The time embedding and each adaLN shift, scale and gate depend on the step alone, so they become constants; shift and
scale join the LayerNorm before them as its bias and weight. Attention over one token is its value and output
projections, which become one matrix. Weights that the steps share stay shared."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..model.attention import unit
from ..model.dits import DiTBlock, Sampler, SelfAttentionOfOne
from ..model.text_tower import TextTower


class FoldedTextTower(TextTower):
    """A text tower, same backbone, whose sampler is folded."""

    def __init__(self, tower: TextTower) -> None:
        nn.Module.__init__(self)
        self.backbone = tower.backbone
        self.alignment = None if tower.alignment is None else FoldedSampler(tower.alignment)  # type: ignore[assignment]


def fold_text_tower(tower: TextTower) -> TextTower:
    """The same function of the ids as `tower`, to rounding, with the step constants folded."""
    return FoldedTextTower(tower).eval()


class FoldedSampler(nn.Module):
    """Text projections [B, D] -> the walk v_T', ..., v_0, as Sampler's, for inference only."""

    def __init__(self, sampler: Sampler) -> None:
        super().__init__()
        self.steps, self.start, self.chi = sampler.steps, sampler.start, sampler.chi
        network = sampler.network
        self.latent, self.final = network.latent, network.final.linear
        self.values = nn.ModuleList(_fold_attention(block.attn) for block in _blocks(network.blocks))
        self.mlps = nn.ModuleList(block.mlp for block in _blocks(network.blocks))
        with torch.no_grad():
            *blocks, final = sampler.modulations()
            for k in range(1, self.steps + 1):
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

    def trajectory(self, text: Tensor) -> list[Tensor]:
        """v_T', ..., v_0 as in equation 8: v_(k-1) = v_k - chi_k eps(v_k, k)."""
        latents = [unit(text) if self.start == "normalised" else text]
        for k in range(self.steps, 0, -1):
            latents.append(latents[-1] - self.chi[k - 1] * self._bias_of_gap(latents[-1], k))
        return latents


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
