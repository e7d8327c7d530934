"""What is traced: a part of the model with the tensors of a graph's contract, in its order of inputs and outputs.

Each takes `*inputs`, so that one form of dynamic shapes fits all."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..model.config import RerankConfig
from ..model.rerank import Reranker
from ..model.text_tower import TextTower
from ..model.video_tower import VideoTower


class VideoGraph(nn.Module):
    """Gives `embedding` and the inner stages asked for."""

    def __init__(self, tower: VideoTower, inner: tuple[str, ...]) -> None:
        super().__init__()
        self.video, self.inner = tower, inner

    @property
    def output_names(self) -> tuple[str, ...]:
        return ("embedding", *self.inner)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        stages = self.video.stages(*inputs)
        return (stages["video_embedding"], *(stages[name] for name in self.inner))


class TemporalGraph(VideoGraph):
    """The same from the image tower's features."""

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        stages = self.video.stages_of(*inputs)
        return (stages["video_embedding"], *(stages[name] for name in self.inner))


class FrameGraph(nn.Module):
    """Single frames uint8 [N, S, S, 3] -> features [N, D], not normalised."""

    def __init__(self, tower: VideoTower) -> None:
        super().__init__()
        self.video = tower

    def forward(self, *inputs: Tensor) -> Tensor:
        (frames,) = inputs
        # Numbers first, as in VideoTower.
        return self.video.encode_frames(frames.to(self.video.mean.dtype).unsqueeze(1)).squeeze(1)


class TextGraph(nn.Module):
    """Gives `embedding`, the inner stages asked for, and the words' embeddings and mask where they are."""

    def __init__(self, tower: TextTower, inner: tuple[str, ...], *, words: bool) -> None:
        super().__init__()
        self.text, self.inner, self.words = tower, inner, words

    @property
    def output_names(self) -> tuple[str, ...]:
        return ("embedding", *self.inner, *(("word_embeddings", "word_mask") if self.words else ()))

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        (input_ids,) = inputs
        if not self.words:
            stages = self.text.stages(input_ids)
            return (stages["aligned"], *(stages[name] for name in self.inner))
        raw, words, mask = self.text.raw_and_words(input_ids)
        stages = self.text.stages_of(raw)
        return (stages["aligned"], *(stages[name] for name in self.inner), words, mask)


class RerankGraph(nn.Module):
    """Scores one query against K candidates."""

    def __init__(self, reranker: Reranker, config: RerankConfig) -> None:
        super().__init__()
        self.rerank = reranker
        self.over_words, self.weighted = config.over_words, config.weighs_words
        self.input_names = (
            "embedding",
            *(("word_embeddings", "word_mask") if self.over_words else ()),
            *(("word_weights",) if self.weighted else ()),
            "frame_embeddings",
            "frame_mask",
        )

    def forward(self, *inputs: Tensor) -> Tensor:
        given = dict(zip(self.input_names, inputs, strict=True))
        text = given["embedding"].unsqueeze(0)
        words, weights = text.unsqueeze(1), torch.ones_like(text[:, :1])  # read by no score that is not over words
        if self.over_words:
            words = given["word_embeddings"].unsqueeze(0)
            weights = given["word_mask"].to(text.dtype).unsqueeze(0)
            if self.weighted:
                weights = weights * given["word_weights"].unsqueeze(0)
        return self.rerank(text, words, weights, given["frame_embeddings"], given["frame_mask"]).squeeze(0)  # type: ignore[no-any-return]
