"""The exponential moving average of a model's weights."""

from __future__ import annotations

from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from vtr_export.model.retrieval import RetrievalModel


class AveragedWeights:
    """A second model that follows the trained one: w <- decay w + (1 - decay) w_trained after every step; after the
    first it is the trained one. Buffers, a ResNet's batch statistics, are copied as they are."""

    def __init__(self, model: RetrievalModel, decay: float) -> None:
        self._averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay))  # type: ignore[no-untyped-call]

    @property
    def model(self) -> RetrievalModel:
        found = self._averaged.module
        assert isinstance(found, RetrievalModel)
        return found

    def update(self, model: RetrievalModel) -> None:
        self._averaged.update_parameters(model)

    def state_dict(self) -> dict[str, object]:
        return self._averaged.state_dict()

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        self._averaged.load_state_dict(state_dict)
