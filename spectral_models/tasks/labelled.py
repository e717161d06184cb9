"""What tasks share that put labels or numbers on rows: texts as tokens, images and audio from files."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

from torch import Tensor

from spectral_models.config import ModelConfig
from spectral_models.data import Tokenizer
from spectral_models.data.batches import Examples, FileExamples, TextExamples
from spectral_models.data.config import AnyDataConfig
from spectral_models.data.folders import LabelledFilesConfig
from spectral_models.data.labelled import LabelledConfig, LabelledTextsConfig
from spectral_models.data.readers import ImageReader, Reader
from spectral_models.data.source import Table, load
from spectral_models.data.tokenizer import require_vocabulary
from spectral_models.evaluation.loop import Batch
from spectral_models.loss import StepLoss
from spectral_models.tasks.config import Kinds, TaskConfig
from spectral_models.tasks.task import Task
from spectral_models.tasks.texts import max_length_reasons, vocabulary_of, vocabulary_reasons


class LabelledTask(Task):
    """Base of tasks on rows of one input: a subclass makes labels of a table, and says what they are called."""

    held_out: Examples
    names: tuple[str, ...] | None = None

    def __init__(
        self, model: ModelConfig, data: LabelledConfig, tokenizer: Tokenizer | None, split: str | None
    ) -> None:
        self.model, self.data = model, data
        self.tokenizer = tokenizer
        self._reader: Reader | None = model.reader()
        train, held_out = load(data) if split is None else (None, data.table(data.source, split))
        self.train = None if train is None else self._examples(train, train)
        self.held_out = self._examples(held_out, train)
        size = self._reader.size if isinstance(self._reader, ImageReader) else None
        length = data.max_length if isinstance(data, LabelledTextsConfig) else None
        self.model = model.with_data(labels=self.names, max_length=length, image_size=size)

    def _examples(self, table: Table, train: Table | None) -> Examples:
        """train: the table that a tokenizer may be learned from."""
        labels = self.labels(table)
        if self._reader is not None:
            made = FileExamples(table.files("input"), labels, self._reader)
            self._reader = made.reader
            return made
        assert isinstance(self.data, LabelledTextsConfig)
        texts = table.texts("input")
        if self.tokenizer is None:
            size = vocabulary_of(self.model)
            self.tokenizer = self.data.tokenizer.build([] if train is None else train.texts("input"), vocab_size=size)
            require_vocabulary(self.tokenizer, size, "the model's vocab_size")
        return TextExamples(texts, labels, self.tokenizer, self.data.max_length)

    @abstractmethod
    def labels(self, table: Table) -> Tensor:
        """The labels of a table's rows, (N,) or (N, K)."""

    def loss(self, model: Any, batch: Batch, step_count: Tensor | int | None = None, **options: Any) -> StepLoss:
        mask = batch.get("attention_mask")
        found: StepLoss = model.loss(batch["inputs"], batch["labels"], mask, step_count=step_count, **options)
        return found


class LabelledTaskConfig(TaskConfig):
    """Base of the configs of such tasks."""

    reads: ClassVar[Kinds] = (LabelledTextsConfig, LabelledFilesConfig)

    def data_kinds(self, model: ModelConfig) -> Kinds:
        return (LabelledTextsConfig,) if model.reader() is None else (LabelledFilesConfig,)

    def unsupported_reasons(self, model: ModelConfig, data: AnyDataConfig) -> list[str]:
        found = super().unsupported_reasons(model, data)
        if found or not isinstance(data, LabelledTextsConfig):
            return found
        return max_length_reasons(model, data.max_length) + vocabulary_reasons(model, data.tokenizer)

    def architecture(self, model: ModelConfig) -> str:
        reader = model.reader()
        return f"SpectralFor{'Sequence' if reader is None else reader.modality.title()}Classification"
