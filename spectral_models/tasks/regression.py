"""Regression: one or several numbers for each text, image or recording."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spectral_models.config import ModelConfig
from spectral_models.data import Tokenizer
from spectral_models.data.labelled import LabelledConfig
from spectral_models.data.labels import real_values
from spectral_models.data.source import SourceConfig, Table
from spectral_models.errors import DataError, needs_extra
from spectral_models.evaluation.loop import Arrays, Batch
from spectral_models.model import SpectralModel
from spectral_models.tasks.labelled import LabelledTask, LabelledTaskConfig
from spectral_models.tasks.task import Reference


class Regression(LabelledTask):
    """Numbers for each row, by squared error. The reference is the error of always predicting the held-out mean."""

    headline: ClassVar[str] = "mse"
    greater_is_better: ClassVar[bool] = False

    def __init__(self, model: ModelConfig, data: SourceConfig, tokenizer: Tokenizer | None, split: str | None) -> None:
        super().__init__(model, data, tokenizer, split)
        self._variance = float(torch.as_tensor(self.held_out.labels).double().var(0, correction=0).mean())

    def references(self) -> tuple[Reference, ...]:
        return (Reference("always the mean", "variance", self._variance),)

    def labels(self, table: Table) -> Tensor:
        numbers = real_values(table)
        numbers = numbers[:, None] if numbers.dim() == 1 else numbers
        assert self.model.label_set is not None
        if numbers.shape[1] != self.model.label_set.size:
            raise DataError(
                f"{table.source} has {numbers.shape[1]} numbers in a row, and the model's num_labels is "
                f"{self.model.label_set.size}. Set num_labels: {numbers.shape[1]}."
            )
        self.names = self.model.label_set.names
        return numbers

    def read(self, model: SpectralModel, batch: Batch) -> dict[str, Tensor]:
        logits, labels = self.logits(model, batch).double(), batch["labels"].double()
        return {"labels": labels, "predicted": logits, "losses": (logits - labels).square().mean(-1)}

    def measures(self, arrays: Arrays) -> dict[str, float]:
        """Correlations are averaged over the K numbers of a row; one with a constant is 0."""
        with needs_extra("correlations need", "train"):
            from scipy.stats import pearsonr, spearmanr

        pairs = list(zip(arrays["labels"].T, arrays["predicted"].T, strict=True))
        loss = float(arrays["losses"].mean())
        return {
            "mse": loss,
            "loss": loss,
            "pearson": float(np.mean([_defined(pearsonr, *pair) for pair in pairs])),
            "spearman": float(np.mean([_defined(spearmanr, *pair) for pair in pairs])),
        }


def _defined(correlation: Any, a: NDArray[Any], b: NDArray[Any]) -> float:
    return float(correlation(a, b).statistic) if np.ptp(a) > 0 and np.ptp(b) > 0 else 0.0


class RegressionConfig(LabelledTaskConfig):
    """The model's ``num_labels`` numbers for each text, image or recording."""

    type: Literal["regression"] = "regression"

    def load(
        self, model: ModelConfig, data: LabelledConfig, *, tokenizer: Tokenizer | None = None, split: str | None = None
    ) -> Regression:
        return Regression(model, data, tokenizer, split)
