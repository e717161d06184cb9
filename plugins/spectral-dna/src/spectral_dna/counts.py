"""Counts of DNA sequences: reads of an experiment, say, by the Poisson loss."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from scipy.stats import spearmanr
from torch import Tensor
from torch.nn import functional as F

from spectral_models.config import ModelConfig
from spectral_models.data import DataError, Tokenizer
from spectral_models.data.labelled import LabelledTextsConfig
from spectral_models.data.labels import real_values
from spectral_models.data.source import Table
from spectral_models.evaluation.loop import Arrays, Batch
from spectral_models.model import SpectralModel
from spectral_models.tasks.config import Kinds
from spectral_models.tasks.labelled import LabelledTask, LabelledTaskConfig


class Counts(LabelledTask):
    """Expected counts. pearson: the correlation of log(1 + count) with log(1 + expected count)."""

    headline: ClassVar[str] = "pearson"
    greater_is_better: ClassVar[bool] = True

    def labels(self, table: Table) -> Tensor:
        counts = real_values(table)
        counts = counts[:, None] if counts.dim() == 1 else counts
        size = self.model.label_set.size if self.model.label_set else 1
        if counts.shape[1] != size or (counts < 0).any():
            raise DataError(
                f"{table.source}: a label is {size} counts, none below 0 (num_labels of the "
                f"model); got {counts.shape[1]} numbers from {float(counts.min()):g}."
            )
        return counts

    def read(self, model: SpectralModel, batch: Batch) -> dict[str, Tensor]:
        logits, counts = self.logits(model, batch).double(), batch["labels"].double()
        losses = F.poisson_nll_loss(logits, counts, reduction="none").mean(-1)
        return {"counts": counts, "expected": logits.exp(), "losses": losses}

    def measures(self, arrays: Arrays) -> dict[str, float]:
        true, expected = (np.log1p(arrays[name]).ravel() for name in ("counts", "expected"))
        defined = np.ptp(true) > 0 and np.ptp(expected) > 0
        return {
            "pearson": float(np.corrcoef(true, expected)[0, 1]) if defined else 0.0,
            "loss": float(arrays["losses"].mean()),
            "spearman": float(spearmanr(true, expected).statistic) if defined else 0.0,
        }


class CountsConfig(LabelledTaskConfig):
    """Counts of DNA sequences from a table: columns ``text``, the sequence, and ``label``, the count."""

    reads: ClassVar[Kinds] = (LabelledTextsConfig,)

    type: Literal["dna/counts"] = "dna/counts"

    def architecture(self, model: ModelConfig) -> None:
        return None

    def load(
        self,
        model: ModelConfig,
        data: LabelledTextsConfig,
        *,
        tokenizer: Tokenizer | None = None,
        split: str | None = None,
    ) -> Counts:
        return Counts(model, data, tokenizer, split)
