"""Exports whose alignment sampler walks wrongly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from vtr_export.model import RetrievalModel
from vtr_export.model.alignment_network import DiTBlock
from vtr_export.model.config import ModelConfig
from vtr_export.model.dits import Sampler

from .mutant import ExportMutant, Reason

# Of the wrong step size over the right one: a digit misread in a table, too little to be seen in what is found.
SLIGHTLY = 1.01


def sampler_of(model: RetrievalModel) -> Sampler:
    tower = model.video if model.config.alignment.of_video else model.text
    assert isinstance(tower.alignment, Sampler)
    return tower.alignment


def _no_sampler(config: ModelConfig) -> str:
    return "" if config.alignment.kind == "dits" else "the model has no sampler"


def _one_step(config: ModelConfig) -> str:
    return _no_sampler(config) or ("" if config.alignment.steps > 1 else "the sampler has one step")


def _with_chi(change: Callable[[Sequence[float]], Sequence[float]]) -> Callable[[RetrievalModel], None]:
    """`change` is made to chi_1 ... chi_T'."""

    def mutate(model: RetrievalModel) -> None:
        sampler = sampler_of(model)
        sampler.schedule = replace(sampler.schedule, chi=tuple(change(sampler.schedule.chi)))

    return mutate


def _reverse(model: RetrievalModel) -> None:
    _with_chi(lambda chi: chi[::-1])(model)
    sampler = sampler_of(model)
    sampler.time_features = sampler.time_features.flip(0)


def _count_from_zero(model: RetrievalModel) -> None:
    """The time of step k is that of k - 1; of step 1 it is 0, whose cosines are 1 and sines 0."""
    sampler = sampler_of(model)
    half = sampler.time_features.shape[1] // 2
    at_zero = torch.cat([torch.ones(1, half), torch.zeros(1, half)], dim=1)
    sampler.time_features = torch.cat([at_zero, sampler.time_features[:-1]])


class BatchForSequence(nn.Module):
    """The batch is taken for the sequence: rows attend to one another."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x)
        mixed: Tensor = (y @ y.T / y.shape[1] ** 0.5).softmax(dim=1) @ y
        return mixed


def _leak(model: RetrievalModel) -> None:
    network = sampler_of(model).network
    network.latent = BatchForSequence(network.latent)  # type: ignore[assignment]


def _swap_shift_and_scale(model: RetrievalModel) -> None:
    """Of every block: the six parts of adaLN in another order."""
    for block in sampler_of(model).network.blocks:
        assert isinstance(block, DiTBlock)
        for parameter in (block.ada_ln.weight, block.ada_ln.bias):
            shift_1, scale_1, gate_1, *rest = parameter.data.chunk(6)
            parameter.data = torch.cat([scale_1, shift_1, gate_1, *rest])


def _other_start(model: RetrievalModel) -> None:
    sampler = sampler_of(model)
    sampler.start = "raw" if sampler.start == "normalised" else "normalised"


def _sampler(
    name: str,
    mistake: str,
    change: Callable[[RetrievalModel], object],
    *,
    stage: str = "sampler_step",
    differs: Reason = _no_sampler,
) -> ExportMutant:
    return ExportMutant(
        name=name,
        mistake=mistake,
        expected=(stage,),
        graph="sampler",
        change=change,
        makes_no_difference=differs,
    )


SAMPLER_GRAPH = (
    _sampler("one-step-less", "T'-1 steps: the first is not taken", _with_chi(lambda chi: [*chi[:-1], 0.0])),
    _sampler(
        "one-chi-wrong",
        "chi of the last step is 1 % too large",
        _with_chi(lambda chi: [chi[0] * SLIGHTLY, *chi[1:]]),
        stage="sampler_step_1",
    ),
    _sampler("steps-reversed", "the steps are taken from 1 to T'", _reverse, differs=_one_step),
    _sampler("steps-from-zero", "a step's time is counted from 0", _count_from_zero),
    _sampler(
        "walks-backwards", "the gap is added instead of subtracted", _with_chi(lambda chi: [-value for value in chi])
    ),
    _sampler("batch-leak", "rows of a batch see one another in the sampler", _leak),
    _sampler("shift-and-scale-swapped", "shift and scale of adaLN change places", _swap_shift_and_scale),
    _sampler("other-start", "the walk begins at a unit vector instead of the projection, or the reverse", _other_start),
)
