"""Token classification: a tag for each word of a sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from spectral_models.config import ModelConfig
from spectral_models.data import DataError, Tokenizer
from spectral_models.data.batches import TaggedExamples
from spectral_models.data.labels import majority, tag_numbers
from spectral_models.data.source import Table
from spectral_models.data.tagged import TaggedConfig
from spectral_models.errors import needs_extra
from spectral_models.evaluation.loop import Arrays, Batch
from spectral_models.loss import IGNORE
from spectral_models.model import SpectralModel
from spectral_models.tasks.config import Kinds, TaskConfig
from spectral_models.tasks.labelled import LabelledTask
from spectral_models.tasks.task import Reference


class TokenClassification(LabelledTask):
    """A tag for each word, predicted at its first token. The reference is the share of the most frequent tag."""

    headline: ClassVar[str] = "accuracy"
    greater_is_better: ClassVar[bool] = True
    units: ClassVar[Mapping[str, str]] = {"loss": " nats"}

    def __init__(self, model: ModelConfig, data: TaggedConfig, tokenizer: Tokenizer | None, split: str | None) -> None:
        super().__init__(model, data, tokenizer, split)
        self._longest = int(self.held_out.lengths().max())
        tags = torch.cat(list(self.held_out.labels))
        tags = tags[tags != IGNORE]
        if not len(tags):
            raise DataError(f"{data.source}: the tokenizer has no token for any held-out word. Give another tokenizer.")
        self._majority = majority(tags.tolist())

    def references(self) -> tuple[Reference, ...]:
        return (Reference("always the most frequent tag", "majority", self._majority),)

    def labels(self, table: Table) -> list[list[int]]:
        assert self.model.label_set is not None
        numbers, self.names = tag_numbers(table, *self.model.label_set[:2])
        return numbers

    def examples_of(self, table: Table, train: Table | None) -> TaggedExamples:
        sentences = [] if train is None else train.columns["tokens"]
        tokenizer = self.tokenizer_for(" ".join(words) for words in sentences)
        return TaggedExamples(table.columns["tokens"], self.labels(table), tokenizer, self.data.max_length)

    def read(self, model: SpectralModel, batch: Batch) -> dict[str, Tensor]:
        """losses: (B,), summed over each sentence. labels, and chosen, the likeliest tags: (B, L).

        L is the length of the longest held-out sentence, so that batches can be concatenated.
        """
        logits, labels = self.logits(model, batch), batch["labels"]
        losses = F.cross_entropy(logits.mT, labels, reduction="none", ignore_index=IGNORE).double().sum(-1)
        more = (0, self._longest - labels.shape[1])
        tags = {"labels": labels.int(), "chosen": logits.argmax(-1).int()}
        return {"losses": losses, **{name: F.pad(x, more, value=IGNORE) for name, x in tags.items()}}

    def measures(self, arrays: Arrays) -> dict[str, float]:
        with needs_extra("F1 needs", "train"):
            from sklearn.metrics import f1_score

        counts = arrays["labels"] != IGNORE
        labels, chosen = arrays["labels"][counts], arrays["chosen"][counts]
        return {
            "accuracy": float((labels == chosen).mean()),
            "loss": float(arrays["losses"].sum() / len(labels)),
            "f1_macro": float(f1_score(labels, chosen, average="macro", zero_division=0)),
        }


class TokenClassificationConfig(TaskConfig):
    """A tag for each word of a sentence: named entities, parts of speech."""

    reads: ClassVar[Kinds] = (TaggedConfig,)
    smooths_labels: ClassVar[bool] = True

    type: Literal["token_classification"] = "token_classification"

    def architecture(self, model: ModelConfig) -> str:
        return "SpectralForTokenClassification"

    def load(
        self, model: ModelConfig, data: Any, *, tokenizer: Tokenizer | None = None, split: str | None = None
    ) -> TokenClassification:
        return TokenClassification(model, data, tokenizer, split)
