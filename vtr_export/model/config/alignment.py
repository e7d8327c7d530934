"""How a text embedding crosses the gap to the videos. Equations and what the paper leaves open: docs/methods.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, PositiveInt
from pydantic import model_validator as validates

from .records import KindRecord, Positive

Beta = Annotated[float, Field(gt=0, lt=1)]
_NETWORK = frozenset({"steps", "beta_start", "beta_end", "condition", "blocks", "heads", "mlp_ratio"})


class AlignmentConfig(KindRecord):
    """DITS (NeurIPS 2024, equation 8), or one of the controls of its table 4."""

    applies: ClassVar[Mapping[str, frozenset[str]]] = {
        "none": frozenset(),
        "fixed-prior": frozenset({"sigma", "start"}),
        "diffusion": _NETWORK,
        "dits": _NETWORK | {"start", "noise", "eval_noise", "gap"},
        "mlp": frozenset({"start", "blocks", "mlp_ratio"}),
    }

    kind: Literal["none", "fixed-prior", "diffusion", "dits", "mlp"] = Field(
        default="none",
        description="no alignment; t + noise of deviation sigma (equation 3); t + a gap drawn by reverse diffusion "
        "(equations 5 to 7); the truncated sampler; or a residual MLP with as many parameters as the sampler's network",
    )
    steps: int = Field(default=10, ge=1, le=100, description="T', steps of the sampler; T of the diffusion")
    beta_start: Beta = Field(default=0.1, description="beta_1 of the linear variance schedule")
    beta_end: Beta = Field(default=0.99, description="beta_T' of the schedule; with one step beta is beta_start")
    start: Literal["raw", "normalised"] = Field(
        default="raw", description="t is the projection as it is, or of length 1 (the paper is silent)"
    )
    noise: Literal["none", "sqrt-beta"] = Field(
        default="none", description="lambda_k of equation 8 in training: 0, or sigma_k = sqrt(beta_k); none at k = 1"
    )
    eval_noise: Literal["none", "sqrt-beta"] = Field(
        default="none", description="lambda_k in evaluation, the same draws each time; an exported graph has none"
    )
    condition: Literal["none", "text"] | None = Field(
        default=None,
        description="what eps sees beside latent and step; None: text for diffusion, else none",
    )
    gap: Literal["v-t", "t-v"] = Field(
        default="v-t", description="walk from the text to the videos, or from the video to the texts"
    )
    sigma: Positive = Field(default=0.1**0.5, description="deviation of the fixed prior, per channel")
    blocks: PositiveInt = Field(default=4, description="N, DiT blocks of the alignment network")
    heads: PositiveInt = Field(default=16, description="attention heads; without effect on a sequence of one token")
    mlp_ratio: Positive = Field(default=4.0, description="hidden channels of the MLP, over width (rounded down)")

    @property
    def conditioned(self) -> bool:
        """The network sees the text, also after the first step."""
        return (self.condition or ("text" if self.kind == "diffusion" else "none")) == "text"

    @property
    def of_video(self) -> bool:
        """The sampler stands behind the video tower instead of the text tower."""
        return self.kind == "dits" and self.gap == "t-v"

    @property
    def random_in_evaluation(self) -> bool:
        """Not a function of its input: a control that is measured but never exported."""
        return self.kind in ("fixed-prior", "diffusion")

    @validates(mode="after")
    def _fits_together(self) -> Self:
        if self.of_video and self.conditioned:
            raise ValueError(
                "gap 't-v' with condition 'text' would embed each video anew for every sentence; choose one of them"
            )
        return self
