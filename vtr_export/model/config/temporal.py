"""How frame features become one video embedding. Equations and what the papers leave open: docs/methods.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, PositiveInt
from pydantic import model_validator as validates

from .records import KindRecord, Positive

_BLOCKS = frozenset({"heads", "mlp_ratio", "position_init", "position_std", "init"})
_SHORT_TERM = frozenset(
    {
        "variant", "scales", "short_layers", "long_layers", "stride", "tail", "difference", "merge", "gate_init",
        "positions", "pool", "short_residual", "normalise", "alpha", "alpha_learned",
    }
)  # fmt: skip
_LAYERS_OF_VARIANT = {"A": (1, 1), "B": (2, 2), "C": (4, 4)}


class TemporalConfig(KindRecord):
    """One head of four: CLIP4Clip's meanP, seqLSTM and seqTransf (arXiv 2104.08860), MSTDT (arXiv 2406.16111)."""

    applies: ClassVar[Mapping[str, frozenset[str]]] = {
        "mean": frozenset(),
        "lstm": frozenset(),
        "transformer": _BLOCKS | {"layers"},
        "mstdt": _BLOCKS | _SHORT_TERM,
    }

    kind: Literal["mean", "lstm", "transformer", "mstdt"] = Field(
        default="mean", description="meanP, seqLSTM, seqTransf, or the multi-scale temporal difference transformer"
    )
    layers: PositiveInt = Field(default=4, description="blocks of seqTransf")
    heads: PositiveInt | None = Field(default=None, description="attention heads; None: one for 64 channels")
    mlp_ratio: Positive = Field(default=4.0, description="hidden channels of the MLP, over width (rounded down)")
    position_init: Literal["text", "normal"] = Field(
        default="text", description="position tables begin as CLIP's text positions, or at random"
    )
    position_std: Positive = Field(default=0.01, description="deviation of random position tables")
    init: Literal["text", "random"] = Field(
        default="text", description="blocks begin as the text tower's first blocks, or at random"
    )

    variant: Literal["A", "B", "C"] = Field(
        default="A",
        description="A: a short-term stack per scale beside the long-term one; B: one short-term stack for all scales; "
        "C: one stack for all scales and the long term",
    )
    scales: tuple[Annotated[int, Field(ge=2)], ...] = Field(
        default=(3, 4, 6), min_length=1, description="k, frames of a subset S_k"
    )
    short_layers: PositiveInt | None = Field(
        default=None, description="blocks of a short-term stack; None: 1 in A, 2 in B, in C those of the one stack"
    )
    long_layers: PositiveInt | None = Field(
        default=None, description="blocks of the long-term stack; None: 1 in A, 2 in B, 4 in C"
    )
    stride: PositiveInt | None = Field(
        default=None, description="frames from one subset's start to the next's; None: k, subsets do not overlap"
    )
    tail: Literal["pad", "drop"] = Field(
        default="pad", description="frames that fill no subset: in one filled with masked frames, or left out"
    )
    difference: Literal["guide", "zero-last", "cross-boundary", "none"] = Field(
        default="guide",
        description="D_k: [v_1, v_2-v_1, ...], [v_2-v_1, ..., 0], [v_1-v_0, v_2-v_1, ...] with v_0 the frame before "
        "the subset (zero where a clip begins), or no differences",
    )
    merge: Literal["add", "gate", "projection", "interleave"] = Field(
        default="add",
        description="how D joins S: S + D, S + g D with a learned g, S + W D, or as tokens of their own between the "
        "frames (CLIP2Video, arXiv 2106.11097)",
    )
    gate_init: float = Field(default=1.0, description="g at the beginning, of merge 'gate'")
    positions: Literal["subset", "absolute"] = Field(
        default="subset", description="a short-term position counts from its subset's start, or from the clip's"
    )
    pool: Literal["mean", "sum"] = Field(default="mean", description="over the valid frames of a subset")
    short_residual: bool = Field(default=False, description="add the frames to what the short-term blocks make of them")
    normalise: bool = Field(
        default=True,
        description="frames of both branches, then s and l, to norm 1 before the fusion; without it V alone",
    )
    alpha: float = Field(default=0.5, ge=0, le=1, description="V = alpha s + (1 - alpha) l, short against long term")
    alpha_learned: bool = Field(default=False, description="alpha is a learned sigmoid that begins at `alpha`")

    def heads_for(self, width: int) -> int:
        return self.heads or max(1, width // 64)

    @property
    def stacks(self) -> tuple[int, int]:
        """Blocks of a short-term and of the long-term stack of mstdt; equal in variant C, where they are one."""
        short, long = _LAYERS_OF_VARIANT[self.variant]
        long = self.long_layers or long
        return (long if self.variant == "C" else self.short_layers or short), long

    @property
    def depth(self) -> int:
        """Blocks of the deepest stack."""
        return self.layers if self.kind == "transformer" else max(self.stacks)

    @validates(mode="after")
    def _fits_together(self) -> Self:
        if len(set(self.scales)) < len(self.scales):
            raise ValueError(f"scales {self.scales} name one scale twice")
        if self.variant == "C" and self.short_layers is not None:
            raise ValueError("short_layers has no effect in variant C, whose one stack has long_layers; leave it out")
        if self.difference == "none" and self.merge != "add":
            raise ValueError(f"merge '{self.merge}' has nothing to merge with difference 'none'; leave it out")
        if self.merge != "gate" and self.gate_init != 1.0:
            raise ValueError(f"gate_init has no effect on merge '{self.merge}'; leave it out")
        if self.stride is not None and self.stride > min(self.scales):
            raise ValueError(f"stride {self.stride} would leave frames out of subsets of {min(self.scales)}; lower it")
        if self.alpha_learned and not 0 < self.alpha < 1:
            raise ValueError(f"alpha {self.alpha} cannot be learned: a sigmoid reaches neither 0 nor 1")
        return self
