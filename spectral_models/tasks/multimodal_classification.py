"""Classification of rows of several modalities: texts, images and recordings. A row may lack some of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from spectral_models.config import ModelConfig
from spectral_models.data import Tokenizer
from spectral_models.data.batches import ModalityExamples
from spectral_models.data.config import AnyDataConfig
from spectral_models.data.modalities import ModalitiesConfig
from spectral_models.data.readers import File
from spectral_models.data.source import Table
from spectral_models.evaluation.loop import Batch
from spectral_models.loss import StepLoss, counted
from spectral_models.model import SpectralModel
from spectral_models.tasks.classification import Classification, MultiLabelClassification
from spectral_models.tasks.config import Kinds, TaskConfig
from spectral_models.tasks.labelled import LabelledTask
from spectral_models.tasks.vocabulary import specs_of


class ModalitiesTask(LabelledTask):
    """Base of tasks on rows of several modalities, each a column of the table.

    A model takes inputs and attention masks by modality, and a modality can only be missing from a whole batch. So a
    batch is split into groups of rows that have the same modalities.
    """

    def examples_of(self, table: Table, train: Table | None) -> ModalityExamples:
        texts = [name for name in self.data.columns if name not in self.readers]
        columns = {name: _texts(table, name) if name in texts else table.files(name) for name in self.data.columns}
        tokenizer = None
        if texts:
            learned = [] if train is None else [text for name in texts for text in _texts(train, name)]
            tokenizer = self.tokenizer_for(text for text in learned if text is not None)
        examples = ModalityExamples(columns, self.labels(table), tokenizer, self.data.max_length, self.readers)
        self.readers = examples.readers
        return examples

    def loss(self, model: Any, batch: Batch, step_count: Tensor | int | None = None, **options: Any) -> StepLoss:
        """The groups' losses, each divided by ``step_count``, add up to the loss of the batch."""
        count = counted(batch["labels"])
        step_count = count if step_count is None else step_count
        parts = [
            model.loss(inputs, batch["labels"][rows], masks, step_count=step_count, **options)
            for rows, inputs, masks in _groups(batch)
        ]
        losses = {name: total / count for name, (total, _) in _weighted(parts, "losses").items()}
        metrics = {name: total / weight for name, (total, weight) in _weighted(parts, "metrics").items()}
        total, nats = (torch.stack([getattr(part, name) for part in parts]).sum() for name in ("loss", "nats"))
        return StepLoss(total, nats, count, losses=losses, metrics=metrics)

    def logits(self, model: SpectralModel, batch: Batch) -> Tensor:
        groups = [(rows, model(inputs, masks).logits.float()) for rows, inputs, masks in _groups(batch)]
        order = torch.cat([rows for rows, _ in groups]).argsort()
        return torch.cat([logits for _, logits in groups])[order]


class MultimodalClassification(ModalitiesTask, Classification):
    """One label for each row."""


class MultimodalMultiLabelClassification(ModalitiesTask, MultiLabelClassification):
    """A set of labels for each row."""


class MultimodalClassificationConfig(TaskConfig):
    """A label, or a set of labels, for rows of texts, images and audio, as the model's ``problem_type`` says.

    The model's inputs are the modalities; ``readers`` of its config has a reader for each that is not text.
    """

    reads: ClassVar[Kinds] = (ModalitiesConfig,)
    smooths_labels: ClassVar[bool] = True
    uses_all_parameters: ClassVar[bool] = False

    type: Literal["multimodal_classification"] = "multimodal_classification"

    def unsupported_reasons(self, model: ModelConfig, data: AnyDataConfig) -> list[str]:
        if self.unfit(model) or not isinstance(data, ModalitiesConfig):
            return super().unsupported_reasons(model, data)
        specs, readers = specs_of(model), model.readers()
        if len(specs) < 2:
            return [f"{self.type} reads several inputs by name, and the model declares {len(specs)}"]
        unread = [
            f"the model's input {spec.name!r} ({spec.kind}) is neither text nor has a reader of files"
            for spec in specs
            if spec.kind != "tokens" and spec.name not in readers
        ]
        return unread + super().unsupported_reasons(model, data)

    def load(
        self, model: ModelConfig, data: Any, *, tokenizer: Tokenizer | None = None, split: str | None = None
    ) -> LabelledTask:
        assert model.label_set is not None
        several = model.label_set.problem == "multi_label_classification"
        kind = MultimodalMultiLabelClassification if several else MultimodalClassification
        return kind(model, data.of([spec.name for spec in specs_of(model)]), tokenizer, split)


def _texts(table: Table, role: str) -> list[str | None]:
    """A column of texts, None where a row lacks it. Raises DataError, with the place, for files."""
    cells = table.columns[role]
    for index, cell in enumerate(cells):
        if isinstance(cell, File):
            raise table.error(index, role, "holds a file, and the model reads text there.")
    table.part([index for index, cell in enumerate(cells) if cell is not None]).texts(role)
    return cells


def _groups(batch: Batch) -> Iterator[tuple[Tensor, Batch, Batch]]:
    """Groups of rows with the same modalities: indices of the rows, inputs and attention masks by modality."""
    present = {name.removeprefix("present."): has for name, has in batch.items() if name.startswith("present.")}
    patterns, group = torch.stack(list(present.values()), 1).unique(dim=0, return_inverse=True)
    for number, pattern in enumerate(patterns.tolist()):
        rows = (group == number).nonzero().flatten()
        names = [name for name, has in zip(present, pattern, strict=True) if has]
        inputs = {name: batch[f"inputs.{name}"][rows] for name in names}
        masks = {name: batch[key][rows] for name in names if (key := f"attention_mask.{name}") in batch}
        yield rows, inputs, masks


def _weighted(parts: Sequence[StepLoss], field: str) -> dict[str, tuple[Tensor, Tensor]]:
    """By name, over the parts that report it: the sum of value times count, and the sum of the counts."""
    found: dict[str, tuple[Tensor, Tensor]] = {}
    for part in parts:
        for name, value in getattr(part, field).items():
            total, weight = found.get(name, (torch.zeros_like(value), torch.zeros_like(part.count)))
            found[name] = total + value * part.count, weight + part.count
    return found
