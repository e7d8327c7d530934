"""The transformer block of every tower and head, on scaled_dot_product_attention.

Parameter names are those of torch.nn.MultiheadAttention and of open_clip's blocks, so that their weights load as they
are. Shapes are explicit numbers wherever they are known, so that an exported graph holds no shape arithmetic."""

from __future__ import annotations

import contextlib
import math
from collections import OrderedDict
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

MASKED = -1e4
"""Added to the score of a hidden key. Finite, so that half precision holds it and a row of hidden keys is no NaN; its
exponential is exactly zero in every precision."""


def unit(x: Tensor) -> Tensor:
    """Scale the last axis to L2 norm 1, in float32 at least; a zero vector stays zero."""
    if x.dtype in (torch.float16, torch.bfloat16):
        x = x.float()
    norm: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return x / norm.clamp_min(1e-12)


def keep(x: Tensor, valid: Tensor) -> Tensor:
    """x [..., D] where `valid` [...] is true, zero elsewhere, even where x is not finite."""
    return torch.where(valid.unsqueeze(-1), x, 0.0)


def key_mask(valid: Tensor, dtype: torch.dtype) -> Tensor:
    """bool [B, L], true where a token may be seen -> the additive mask [B, 1, 1, L]."""
    return (1.0 - valid.to(dtype))[:, None, None, :] * MASKED


def causal_mask(length: int) -> Tensor:
    """The additive mask [L, L] with which a token sees itself and what stands before it."""
    return torch.full((length, length), MASKED).triu(1)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, scale: float | None = None) -> Tensor:
    """softmax(scale q k^T + mask) v, by head: q [B, H, L, w], k and v [B, H, K, w] -> [B, H, L, w].

    The usual scale is 1 / sqrt(w); one of 1 says that q brings it along."""
    scale = 1.0 / math.sqrt(q.shape[-1]) if scale is None else scale
    if torch.compiler.is_exporting():
        # The ONNX exporter writes the fused operator with shape arithmetic around the key's transpose: nine more nodes.
        scores = (q if scale == 1.0 else q * scale) @ k.transpose(-2, -1)
        return (scores if mask is None else scores + mask).softmax(dim=-1) @ v
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)


_operator_in_export = False


@contextlib.contextmanager
def attention_operator() -> Iterator[None]:
    """Export attention as one `Attention` operator of opset 23 instead of products and a softmax."""
    global _operator_in_export
    before, _operator_in_export = _operator_in_export, True
    try:
        yield
    finally:
        _operator_in_export = before


def _by_operator(q: Tensor, mask: Tensor | None) -> bool:
    """Engines want a mask with a row for each query; with one that is the same for all attention stays plain."""
    fits = mask is None or mask.shape[-2] == q.shape[1]
    return torch.compiler.is_exporting() and _operator_in_export and fits


def attend_joined(
    q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Tensor | None = None, scale: float | None = None
) -> Tensor:
    """`attend` with the heads side by side: q [B, L, width], k and v [B, K, width] -> [B, L, width]."""
    if _by_operator(q, mask):
        return torch.onnx.ops.attention(q, k, v, mask, q_num_heads=heads, kv_num_heads=heads, scale=scale)[0]
    length, width = q.shape[1:]
    q, k, v = (x.reshape(-1, x.shape[1], heads, width // heads).transpose(1, 2) for x in (q, k, v))
    return attend(q, k, v, mask, scale).transpose(1, 2).reshape(-1, length, width)


class QuickGELU(nn.Module):
    """x sigmoid(1.702 x), the activation of OpenAI's weights."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class Attention(nn.Module):
    """Multi-head self-attention, [B, L, width] -> [B, L, width]; `mask` is additive and broadcasts to [B, H, L, L]."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.width, self.heads, self.head_width = width, heads, width // heads
        self.scale = 1.0 / math.sqrt(self.head_width)
        self.in_proj_weight = nn.Parameter(torch.randn(3 * width, width) * width**-0.5)
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        qkv = F.linear(x, self.in_proj_weight, self.in_proj_bias)
        if _by_operator(x, mask):
            q, k, v = qkv.chunk(3, dim=2)
            return self.out_proj(attend_joined(q, k, v, self.heads, mask, self.scale))  # type: ignore[no-any-return]
        # One Reshape and one Transpose for all three; by `attend_joined` each of them would have its own.
        length = x.shape[1]
        q, k, v = qkv.reshape(-1, length, 3 * self.heads, self.head_width).transpose(1, 2).chunk(3, dim=1)
        seen = attend(q, k, v, mask, self.scale)
        return self.out_proj(seen.transpose(1, 2).reshape(-1, length, self.width))  # type: ignore[no-any-return]


class ResidualBlock(nn.Module):
    """x + attention(LN(x)), then x + MLP(LN(x))."""

    def __init__(self, width: int, heads: int, mlp_ratio: float, *, quick_gelu: bool, depth: int) -> None:
        """`depth` is the number of blocks in the stack: CLIP shrinks what joins the residual path by its root."""
        super().__init__()
        hidden = int(width * mlp_ratio)
        self.ln_1 = nn.LayerNorm(width)
        self.attn = Attention(width, heads)
        self.ln_2 = nn.LayerNorm(width)
        gelu = QuickGELU() if quick_gelu else nn.GELU()
        c_fc, c_proj = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.mlp = nn.Sequential(OrderedDict(c_fc=c_fc, gelu=gelu, c_proj=c_proj))
        nn.init.normal_(c_fc.weight, std=(2 * width) ** -0.5)
        for joins in (self.attn.out_proj, c_proj):
            nn.init.normal_(joins.weight, std=(2 * depth * width) ** -0.5)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = x + self.attn(self.ln_1(x), mask)
        return x + self.mlp(self.ln_2(x))  # type: ignore[no-any-return]


class Transformer(nn.Module):
    """A stack of residual blocks that share one mask."""

    def __init__(self, width: int, layers: int, heads: int, mlp_ratio: float, *, quick_gelu: bool) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(
            ResidualBlock(width, heads, mlp_ratio, quick_gelu=quick_gelu, depth=layers) for _ in range(layers)
        )

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        for block in self.resblocks:
            x = block(x, mask)
        return x
