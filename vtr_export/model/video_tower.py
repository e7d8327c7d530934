"""Frames -> video embedding."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .alignment import align, build_alignment_head
from .backbone import build_image_tower
from .config import ModelConfig
from .dits import Walk
from .temporal import build_temporal_head


class VideoTower(nn.Module):
    """frames uint8 [B, T, S, S, 3], frame_mask bool [B, T] with a true in every row -> embedding [B, D], norm 1."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.count, self.size, self.width = config.frames.count, config.frames.size, config.backbone.embed_dim
        self.backbone = build_image_tower(config.backbone)
        self.temporal = build_temporal_head(config)
        self.alignment = build_alignment_head(self.width, config.alignment, "video")
        self.normalise = True  # else the backbone does it
        self.mean: Tensor
        self.scale: Tensor
        self.register_buffer("mean", 255.0 * _channels(config.frames.mean), persistent=False)
        self.register_buffer("scale", 1.0 / (255.0 * _channels(config.frames.std)), persistent=False)

    def forward(self, frames: Tensor, frame_mask: Tensor) -> Tensor:
        return self.stages(frames, frame_mask)["video_embedding"]

    def stages(self, frames: Tensor, frame_mask: Tensor) -> dict[str, Tensor]:
        """`frame_embeddings` [B, T, D] (norm 1, zero where masked; not aligned), `sampler_step_k` [B, D] of a sampler
        behind this tower (as TextTower's) and `video_embedding` [B, D]."""
        return self.stages_of(self.encode_frames(frames), frame_mask)

    @property
    def inner_stages(self) -> tuple[str, ...]:
        """The names of `stages` before the last."""
        return ("frame_embeddings", *(self.alignment.stage_names if isinstance(self.alignment, Walk) else ()))

    def embed(self, features: Tensor, frame_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Features [B, T, D] as `encode_frames` gives them -> (video embeddings [B, D], frame embeddings [B, T, D])."""
        stages = self.stages_of(features, frame_mask)
        return stages["video_embedding"], stages["frame_embeddings"]

    def stages_of(self, features: Tensor, frame_mask: Tensor) -> dict[str, Tensor]:
        """`stages` from features [B, T, D]: the temporal head, and the alignment behind it."""
        video, per_frame = self.temporal(features, frame_mask)
        stages: dict[str, Tensor] = {"frame_embeddings": per_frame}
        if self.alignment is not None:
            steps, video = align(self.alignment, video)
            stages |= steps
        return stages | {"video_embedding": video}

    def encode_frames(self, frames: Tensor) -> Tensor:
        """uint8 [B, T, S, S, 3] -> the image tower's features [B, T, D], not normalised."""
        # Numbers first: TensorRT takes uint8 into a Cast and nothing else.
        pixels = frames.to(self.mean.dtype).reshape(-1, self.size, self.size, 3).permute(0, 3, 1, 2)
        features = self.backbone((pixels - self.mean) * self.scale if self.normalise else pixels)
        return features.reshape(-1, frames.shape[1], self.width)  # type: ignore[no-any-return]


def _channels(values: tuple[float, float, float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float32).reshape(1, 3, 1, 1)
