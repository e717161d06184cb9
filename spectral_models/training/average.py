"""The exponential moving average of a model's weights."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from spectral_models.model import SpectralModel


class Average(AveragedModel):
    """A copy of a model whose parameters are an average of the model's; its buffers are the model's.

    It begins as the weights of the first step, and n steps later becomes d · average + (1 − d) · weights with
    d = min(decay, (1 + n) / (10 + n)): a constant d would leave the first weights in it for 1 / (1 − decay) steps.
    """

    module: SpectralModel

    def __init__(self, model: SpectralModel, decay: float) -> None:
        def update(averages: Any, weights: Any, n: Tensor | int) -> None:
            d = min(decay, (1 + int(n)) / (10 + int(n)))
            get_ema_multi_avg_fn(d)(averages, weights, n)

        super().__init__(model, multi_avg_fn=update)


class UpdateAverage(TrainerCallback):  # type: ignore[misc]  # transformers carries no annotations mypy can follow
    def __init__(self, average: Average, model: SpectralModel) -> None:
        self.average, self.model = average, model

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.average.update_parameters(self.model)
