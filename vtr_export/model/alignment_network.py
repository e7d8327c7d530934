"""The network of DITS and of the diffusion control: eps(x_k, k), a stack of DiT blocks (Peebles and Xie 2023,
adaLN-Zero) on a sequence of one token, so samples never mix."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .config import AlignmentConfig

TIME_FEATURES = 256
MAX_PERIOD = 10_000.0


def time_features(steps: int) -> Tensor:
    """float32 [T', 256]: cosines, then sines, of k at 128 periods from 1 to 10,000 (over 2 pi), for k = 1 ... T'."""
    half = TIME_FEATURES // 2
    frequencies = torch.exp(-math.log(MAX_PERIOD) * torch.arange(half, dtype=torch.float64) / half)
    angles = torch.arange(1, steps + 1, dtype=torch.float64)[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=1).float()


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return x * (1.0 + scale) + shift


class SelfAttentionOfOne(nn.Module):
    """Self-attention over a sequence of one token, [B, D] -> [B, D].

    The softmax over one score is 1, whatever query and key are: the answer is the token's value. All three
    projections are parameters, as in the paper's network; only the value's part is computed."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)
        xavier(self.out_proj)

    def forward(self, x: Tensor) -> Tensor:
        value = F.linear(x, self.in_proj_weight[2 * self.width :], self.in_proj_bias[2 * self.width :])
        return self.out_proj(value)  # type: ignore[no-any-return]


class DiTBlock(nn.Module):
    """Attention and MLP, each with shift, scale and gate made from the step's condition; the identity at first."""

    def __init__(self, width: int, mlp_ratio: float) -> None:
        super().__init__()
        hidden = int(width * mlp_ratio)
        self.norm_1 = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.attn = SelfAttentionOfOne(width)
        self.norm_2 = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.mlp = nn.Sequential(
            OrderedDict(
                c_fc=xavier(nn.Linear(width, hidden)),
                gelu=nn.GELU(approximate="tanh"),
                c_proj=xavier(nn.Linear(hidden, width)),
            )
        )
        self.ada_ln = zero(nn.Linear(width, 6 * width))

    def modulation(self, conditions: Tensor) -> Tensor:
        """Conditions [..., D] -> shift, scale, gate of the attention, then of the MLP: [..., 6 D]."""
        return self.ada_ln(F.silu(conditions))  # type: ignore[no-any-return]

    def forward(self, x: Tensor, modulation: Tensor) -> Tensor:
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = modulation.chunk(6, dim=-1)
        x = x + gate_1 * self.attn(modulate(self.norm_1(x), shift_1, scale_1))
        return x + gate_2 * self.mlp(modulate(self.norm_2(x), shift_2, scale_2))  # type: ignore[no-any-return]


class FinalLayer(nn.Module):
    """LayerNorm, shift and scale, and the projection that is zero at first: the sampler begins as the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.ada_ln = zero(nn.Linear(width, 2 * width))
        self.linear = zero(nn.Linear(width, width))

    def modulation(self, conditions: Tensor) -> Tensor:
        """Conditions [..., D] -> shift and scale: [..., 2 D]."""
        return self.ada_ln(F.silu(conditions))  # type: ignore[no-any-return]

    def forward(self, x: Tensor, modulation: Tensor) -> Tensor:
        shift, scale = modulation.chunk(2, dim=-1)
        return self.linear(modulate(self.norm(x), shift, scale))  # type: ignore[no-any-return]


class AlignmentNetwork(nn.Module):
    """eps(x_k, k) or eps(x_k, k, t): latents [B, D] and one step's modulations -> [B, D].

    A text condition joins the time embedding, c = embed(k) + W t + b, as DiT's label does."""

    def __init__(self, width: int, config: AlignmentConfig) -> None:
        super().__init__()
        self.latent = xavier(nn.Linear(width, width))
        self.time = nn.Sequential(normal(nn.Linear(TIME_FEATURES, width)), nn.SiLU(), normal(nn.Linear(width, width)))
        self.text = normal(nn.Linear(width, width)) if config.conditioned else None
        self.blocks = nn.ModuleList(DiTBlock(width, config.mlp_ratio) for _ in range(config.blocks))
        self.final = FinalLayer(width)

    def modulations(self, features: Tensor, text: Tensor | None = None) -> list[Tensor]:
        """Time features [..., 256] -> the modulation [..., 6 D] of every block, and [..., 2 D] of the final layer.
        A conditioned network needs the texts [..., D] too, broadcast against the features; another ignores them."""
        conditions = self.time(features)
        if self.text is not None:
            assert text is not None
            conditions = conditions + self.text(text)
        return [layer.modulation(conditions) for layer in (*self.blocks, self.final)]

    def forward(self, latents: Tensor, modulations: Sequence[Tensor]) -> Tensor:
        x = self.latent(latents)
        for layer, modulation in zip((*self.blocks, self.final), modulations, strict=True):
            x = layer(x, modulation)
        return x  # type: ignore[no-any-return]


def at_step(tables: Sequence[Tensor], k: int) -> list[Tensor]:
    """Modulations of all steps [..., T', n D] -> those of step k, counted from 1: [..., n D]."""
    return [table[..., k - 1, :] for table in tables]


def xavier(layer: nn.Linear) -> nn.Linear:
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def normal(layer: nn.Linear) -> nn.Linear:
    nn.init.normal_(layer.weight, std=0.02)
    nn.init.zeros_(layer.bias)
    return layer


def zero(layer: nn.Linear) -> nn.Linear:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
