"""Classification of texts, images and recordings: one label, or a set of labels, for each."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from spectral_models.config import ModelConfig
from spectral_models.data import Tokenizer
from spectral_models.data.labelled import LabelledConfig
from spectral_models.data.labels import class_numbers, majority, multi_hot
from spectral_models.data.source import Table
from spectral_models.errors import needs_extra
from spectral_models.evaluation.loop import Arrays, Batch
from spectral_models.evaluation.tf_idf import tf_idf_accuracy
from spectral_models.model import SpectralModel
from spectral_models.tasks.labelled import LabelledTask, LabelledTaskConfig
from spectral_models.tasks.task import Reference


class Classification(LabelledTask):
    """One label for each row, compared with the most frequent held-out label and, for texts, with TF-IDF."""

    headline: ClassVar[str] = "accuracy"
    greater_is_better: ClassVar[bool] = True
    units: ClassVar[Mapping[str, str]] = {"loss": " nats"}

    def references(self) -> tuple[Reference, ...]:
        share = majority(torch.as_tensor(self.held_out.labels).tolist())
        constant = Reference("always the most frequent label", "majority", share)
        return (constant,) if self._tf_idf is None else (constant, Reference("TF-IDF", "tf_idf", self._tf_idf))

    @cached_property
    def _tf_idf(self) -> float | None:
        """The accuracy of logistic regression on the same texts; None for files, and where nothing was trained on."""
        if self.train_table is None or self.readers or self.role not in self.table.columns:
            return None
        tables = self.train_table, self.table
        (texts, labels), held_out = ((table.texts(self.role), self.labels(table).tolist()) for table in tables)
        return tf_idf_accuracy(texts, labels, *held_out)

    def labels(self, table: Table) -> Tensor:
        assert self.model.label_set is not None
        numbers, self.names = class_numbers(table, *self.model.label_set[:2])
        return torch.tensor(numbers)

    def read(self, model: SpectralModel, batch: Batch) -> dict[str, Tensor]:
        logits, labels = self.logits(model, batch), batch["labels"]
        losses = F.cross_entropy(logits, labels, reduction="none").double()
        return {"labels": labels, "chosen": logits.argmax(-1), "losses": losses}

    def measures(self, arrays: Arrays) -> dict[str, float]:
        with needs_extra("F1 and Matthews need", "train"):
            from sklearn.metrics import f1_score, matthews_corrcoef

        labels, chosen = arrays["labels"], arrays["chosen"]
        several = len({*labels.tolist(), *chosen.tolist()}) > 1  # for a single label scikit-learn warns and returns 0
        return {
            "accuracy": float((labels == chosen).mean()),
            "loss": float(arrays["losses"].mean()),
            "f1_macro": float(f1_score(labels, chosen, average="macro", zero_division=0)),
            "matthews": float(matthews_corrcoef(labels, chosen)) if several else 0.0,
        }


class MultiLabelClassification(LabelledTask):
    """A set of labels for each row. Predicted are those of probability 0.5 or more."""

    headline: ClassVar[str] = "f1_macro"
    greater_is_better: ClassVar[bool] = True
    units: ClassVar[Mapping[str, str]] = {"loss": " nats"}

    def labels(self, table: Table) -> Tensor:
        assert self.model.label_set is not None
        numbers, self.names = multi_hot(table, *self.model.label_set[:2])
        return numbers

    def read(self, model: SpectralModel, batch: Batch) -> dict[str, Tensor]:
        logits, labels = self.logits(model, batch), batch["labels"]
        losses = F.binary_cross_entropy_with_logits(logits, labels, reduction="none").mean(-1).double()
        return {"labels": labels > 0.5, "chosen": logits >= 0, "losses": losses}

    def measures(self, arrays: Arrays) -> dict[str, float]:
        with needs_extra("F1 needs", "train"):
            from sklearn.metrics import f1_score

        labels, chosen = arrays["labels"], arrays["chosen"]
        return {
            "f1_macro": float(f1_score(labels, chosen, average="macro", zero_division=0)),
            "loss": float(arrays["losses"].mean()),
            "f1_micro": float(f1_score(labels, chosen, average="micro", zero_division=0)),
            "exact_match": float((labels == chosen).all(-1).mean()),
        }


class ClassificationConfig(LabelledTaskConfig):
    """A label, or a set of labels, for each text, image or recording, as the model's ``problem_type`` says."""

    smooths_labels: ClassVar[bool] = True

    type: Literal["classification"] = "classification"

    def load(
        self, model: ModelConfig, data: LabelledConfig, *, tokenizer: Tokenizer | None = None, split: str | None = None
    ) -> LabelledTask:
        assert model.label_set is not None
        several = model.label_set.problem == "multi_label_classification"
        return (MultiLabelClassification if several else Classification)(model, data, tokenizer, split)
