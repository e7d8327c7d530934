"""DITS, the truncated sampler that walks an embedding across the gap between modalities (NeurIPS 2024, equation 8):

    v_T' = t;   v_(k-1) = v_k - chi_k eps(v_k, k) + lambda_k z,   z ~ N(0, I),   k = T', ..., 1

lambda_k is 0, or sqrt(beta_k) but for k = 1, where no noise is added."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor, nn

from .alignment_network import AlignmentNetwork, at_step, time_features
from .attention import unit
from .config import AlignmentConfig
from .schedule import Schedule, noise_source, normal_like


class Walk(nn.Module, ABC):
    """A head whose steps can be looked at: embeddings [B, D] -> v_T', ..., v_0."""

    schedule: Schedule

    @abstractmethod
    def trajectory(self, embeddings: Tensor) -> list[Tensor]:
        """v_T', ..., v_0: T' + 1 tensors [B, D]."""

    def forward(self, embeddings: Tensor) -> Tensor:
        return self.trajectory(embeddings)[-1]

    @property
    def stage_names(self) -> tuple[str, ...]:
        """`sampler_step_k` is v_(k-1), what step k makes; k = T' ... 1."""
        return tuple(f"sampler_step_{k}" for k in range(self.schedule.steps, 0, -1))


class Sampler(Walk):
    """The walk. It depends on its start alone, so an embedding is aligned once, whatever it is compared with.

    The paper starts at the text; behind the video tower (gap t - v, its table 6b) the start is the unit video
    embedding. Whether noise is drawn outside training is left open there: `eval_noise` decides."""

    def __init__(self, width: int, config: AlignmentConfig) -> None:
        super().__init__()
        self.width, self.schedule = width, Schedule.of(config)
        self.start = "normalised" if config.of_video else config.start
        self.noise_in_training = config.noise == "sqrt-beta"
        self.noise_in_evaluation = config.eval_noise == "sqrt-beta"
        self.network = AlignmentNetwork(width, config)
        self.time_features: Tensor
        self.register_buffer("time_features", time_features(config.steps), persistent=False)

    def modulations(self, start: Tensor) -> list[Tensor]:
        """The network's modulations for all steps at once: [T', n D], which depend on the weights alone, so that an
        exporter may keep them as constants and call `walk`; with a text condition [B, T', n D] of starts [B, D]."""
        return self.network.modulations(self.time_features, start.unsqueeze(-2))

    def trajectory(self, embeddings: Tensor) -> list[Tensor]:
        start = unit(embeddings) if self.start == "normalised" else embeddings
        return self.walk(start, self.modulations(start))

    def walk(self, start: Tensor, modulations: Sequence[Tensor]) -> list[Tensor]:
        noisy = self.noise_in_training if self.training else self.noise_in_evaluation
        source = noise_source(training=self.training)
        latents = [start]
        for k in range(self.schedule.steps, 0, -1):
            gap = self.network(latents[-1], at_step(modulations, k))
            latent = latents[-1] - self.schedule.chi[k - 1] * gap
            if noisy and k > 1:
                latent = latent + self.schedule.sigma[k - 1] * normal_like(latent, source)
            latents.append(latent)
        return latents


def without_evaluation_noise(model: nn.Module) -> None:
    """Make every sampler a function of its start, in place, as it is in an exported graph."""
    for module in model.modules():
        if isinstance(module, Sampler):
            module.noise_in_evaluation = False
