"""Ids -> text embedding."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from .alignment import align, build_alignment_head
from .attention import keep, unit
from .backbone import TextTransformer
from .config import ModelConfig
from .dits import Walk


@dataclass(frozen=True)
class TextFeatures:
    """What training and the second stage see of B sentences of L tokens."""

    raw: Tensor  # [B, D] the projection at the end token, as it is: where an alignment head starts
    embedding: Tensor  # [B, D] aligned, norm 1
    words: Tensor  # [B, L, D] projections of the words, not aligned, norm 1, zero where masked
    word_mask: Tensor  # bool [B, L] strictly between start and end; the end token alone where there is no word


class TextTower(nn.Module):
    """input_ids int32 [B, L], each row with an end-of-text id, zero-padded -> embedding [B, D], norm 1."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        backbone = config.backbone
        self.backbone = TextTransformer(
            backbone.text, backbone.embed_dim, quick_gelu=backbone.quick_gelu, end_id=config.text.end_id
        )
        self.alignment = build_alignment_head(backbone.embed_dim, config.alignment, "text")

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.stages(input_ids)["aligned"]

    def stages(self, input_ids: Tensor) -> dict[str, Tensor]:
        """`text_embedding` (the projection as it is), `sampler_step_k` (v_(k-1), what step k makes; k = T' ... 1) and
        `aligned` (norm 1), each [B, D]."""
        return self.stages_of(self.backbone(input_ids))

    def stages_of(self, raw: Tensor) -> dict[str, Tensor]:
        """`stages` from projections [B, D] as they are."""
        stages: dict[str, Tensor] = {"text_embedding": raw}
        if self.alignment is None:
            return stages | {"aligned": unit(raw)}
        steps, aligned = align(self.alignment, raw)
        return stages | steps | {"aligned": aligned}

    @property
    def inner_stages(self) -> tuple[str, ...]:
        """The names of `stages` before the last."""
        return ("text_embedding", *(self.alignment.stage_names if isinstance(self.alignment, Walk) else ()))

    def with_words(self, input_ids: Tensor) -> TextFeatures:
        """One pass for the sentence and its words."""
        raw, words, mask = self.raw_and_words(input_ids)
        return TextFeatures(raw, self.align(raw), words, mask)

    def raw_and_words(self, input_ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`raw`, `words` and `word_mask` of TextFeatures."""
        raw, tokens = self.backbone.with_words(input_ids)
        mask = self.backbone.word_mask(input_ids)
        return raw, unit(keep(tokens, mask)), mask

    def align(self, raw: Tensor) -> Tensor:
        """Projections [B, D] as they are -> embeddings [B, D] of norm 1."""
        return unit(raw if self.alignment is None else self.alignment(raw))
