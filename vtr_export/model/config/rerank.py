"""The second stage: a score of pairs from stored frame embeddings. Equations: docs/methods.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field
from pydantic import model_validator as validates

from .records import KindRecord


class RerankConfig(KindRecord):
    """DMAE's token-wise similarity (arXiv 2309.11082) or X-Pool (arXiv 2203.15086); `none` trains no second stage."""

    applies: ClassVar[Mapping[str, frozenset[str]]] = {
        "none": frozenset(),
        "token-wise": frozenset(
            {"weight", "interaction", "tokens", "textual_attention", "visual_attention", "visual_factor", "padding"}
        ),
        "x-pool": frozenset({"weight", "dropout"}),
    }

    kind: Literal["none", "token-wise", "x-pool"] = Field(default="none", description="which score")
    weight: float = Field(default=1.0, gt=0, description="total score = first stage + weight * second stage")
    interaction: Literal["ti", "wti"] = Field(
        default="ti", description="tokens count alike, or by a learned softmax (DRL, arXiv 2203.07111)"
    )
    tokens: Literal["sentence", "words", "both"] = Field(
        default="both", description="what of the text meets the frames; both: the mean of the two scores"
    )
    textual_attention: bool = Field(
        default=True, description="words that are nouns, verbs or adjectives, and no stop words, count double"
    )
    visual_attention: bool = Field(
        default=True, description="the frame most similar to a word's best frame adds to the word's score"
    )
    visual_factor: float = Field(default=0.5, ge=0, description="how much it adds")
    padding: Literal["hidden", "zero"] = Field(
        default="hidden", description="padded tokens never win a maximum, or win it with 0 as in the released code"
    )
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(default=0.3, description="of X-Pool's last layer, in training")

    @property
    def over_words(self) -> bool:
        """The score looks at a text's words, not at the sentence alone."""
        return self.kind == "token-wise" and self.tokens != "sentence"

    @property
    def weighs_words(self) -> bool:
        """The score needs to know which words matter: part-of-speech weights beside the token ids."""
        return self.over_words and self.textual_attention

    @validates(mode="after")
    def _fits_together(self) -> Self:
        if not self.visual_attention and self.visual_factor != 0.5:
            raise ValueError("visual_factor has no effect without visual_attention; leave it out")
        if self.tokens == "sentence" and not self.textual_attention:
            raise ValueError("textual_attention has no effect on tokens 'sentence'; leave it out")
        return self
