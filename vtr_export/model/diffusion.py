"""The diffusion control of the DITS paper (NeurIPS 2024, section 3.2): a DDPM on the gap between video and text.

The paper does not say on what scale the gap lives. Here delta_0 = sqrt(D) (v - t) of the unit embeddings, so that a
channel has a variance of about 1, which the DDPM's N(0, I) at the other end assumes. The text condition has the same
scale: sqrt(D) t."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from .alignment_network import AlignmentNetwork, at_step, time_features
from .attention import unit
from .config import AlignmentConfig
from .schedule import Schedule, noise_source, normal_like


class GapDiffusion(nn.Module):
    """Text projections [B, D] -> t + a gap drawn by reverse diffusion [B, D]."""

    def __init__(self, width: int, config: AlignmentConfig) -> None:
        super().__init__()
        self.scale, self.schedule = math.sqrt(width), Schedule.of(config)
        self.network = AlignmentNetwork(width, config)
        self.time_features: Tensor
        self.alpha_bar: Tensor
        self.register_buffer("time_features", time_features(config.steps), persistent=False)
        self.register_buffer("alpha_bar", torch.tensor(self.schedule.alpha_bar), persistent=False)

    def loss(self, text: Tensor, video: Tensor, kind: Literal["l1", "l2"]) -> Tensor:
        """Stage A, equation 6 on equation 5, of matched rows text, video [B, D]: the mean over rows and channels of
        |eps - eps_gamma(delta_k, k, t)| or of its square (table 7), k uniform in 1 ... T per row; a scalar.

        No gradient leaves the network: text and video are detached."""
        text, video = self._scaled(text.detach()), self._scaled(video.detach())
        source = noise_source(training=self.training)
        # Drawn on the CPU like the noise, so that every device sees the same steps.
        row = torch.randint(self.schedule.steps, (len(text),), generator=source).to(text.device)
        noise = normal_like(text, source)
        alpha_bar = self.alpha_bar[row].unsqueeze(-1)
        latents = alpha_bar.sqrt() * (video - text) + (1.0 - alpha_bar).sqrt() * noise
        difference: Tensor = noise - self.network(latents, self.network.modulations(self.time_features[row], text))
        return difference.abs().mean() if kind == "l1" else difference.square().mean()

    def forward(self, text: Tensor) -> Tensor:
        """Equation 7 from delta_T ~ N(0, I), sigma_k^2 = beta_k, no noise at k = 1; -> unit(t) + delta_0 / sqrt(D)."""
        start, source, schedule = self._scaled(text), noise_source(training=self.training), self.schedule
        tables = self.network.modulations(self.time_features, start.unsqueeze(-2))
        gap = normal_like(start, source)
        for k in range(schedule.steps, 0, -1):
            beta, alpha, alpha_bar = (values[k - 1] for values in (schedule.beta, schedule.alpha, schedule.alpha_bar))
            noise = self.network(gap, at_step(tables, k))
            gap = (gap - beta / math.sqrt(1.0 - alpha_bar) * noise) / math.sqrt(alpha)
            if k > 1:
                gap = gap + schedule.sigma[k - 1] * normal_like(gap, source)
        return (start + gap) / self.scale

    def _scaled(self, embeddings: Tensor) -> Tensor:
        return unit(embeddings) * self.scale
