"""Exports whose reduced precision overflows."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from vtr_export.model import RetrievalModel

from .mutant import ExportMutant
from .text_graph import blocks_of

# Deviation of the residual stream behind the last block, as trained towers have in some of their channels: squares of
# such numbers are beyond 65,504, the largest number of fp16.
ACTIVATION = 500.0
# The islands that hold a LayerNorm's statistics, in one operator or spelled out.
STATISTICS = ("op:LayerNormalization", "op:Pow", "op:ReduceMean")


class PlainLayerNorm(nn.Module):
    """A LayerNorm spelled out, as exporters write it for engines that have none."""

    def __init__(self, norm: nn.LayerNorm, eps: float) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = norm.weight, norm.bias, eps

    def forward(self, x: Tensor) -> Tensor:
        apart = x - x.mean(dim=-1, keepdim=True)
        spread = apart.pow(2).mean(dim=-1, keepdim=True)
        return apart / (spread + self.eps).sqrt() * self.weight + self.bias


@torch.no_grad()
def spell_out_with_large_activations(model: RetrievalModel) -> None:
    """The same function of the ids, its residual stream in other units: all that joins it is scaled by a power of two,
    and each LayerNorm, spelled out, takes that away again. So a model whose weights are small behaves as a trained one
    does, and in fp32 nothing is wrong with the graph."""
    text = model.text.backbone
    drawn = torch.randint(
        1, text.end_id - 1, (4, model.config.text.context_length), generator=torch.Generator().manual_seed(0)
    )
    factor = 2.0 ** round(math.log2(ACTIVATION / float(text.hidden(drawn.int()).std())))
    for block in blocks_of(text):
        for layer in (block.attn.out_proj, block.mlp.get_submodule("c_proj")):
            for parameter in layer.parameters():
                parameter.mul_(factor)
        block.ln_1, block.ln_2 = (_spell_out(norm, factor) for norm in (block.ln_1, block.ln_2))
    for table in (text.token_embedding.weight, text.positional_embedding):
        table.mul_(factor)
    text.ln_final = _spell_out(text.ln_final, factor)


def _spell_out(norm: nn.LayerNorm, factor: float) -> nn.LayerNorm:
    return PlainLayerNorm(norm, norm.eps * factor**2)  # type: ignore[return-value]


PRECISION = (
    ExportMutant(
        name="layer-norm-in-fp16",
        mistake="in fp16 the LayerNorms of the text tower sum squares in fp16",
        expected=("text_embedding",),
        graph="text",
        change=spell_out_with_large_activations,
        fp16_without=STATISTICS,
    ),
)
