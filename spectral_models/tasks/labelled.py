"""What tasks share that put labels or numbers on rows: texts as tokens, images and audio from files."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar

from torch import Tensor

from spectral_models.config import ModelConfig
from spectral_models.data import Tokenizer
from spectral_models.data.batches import Examples, FileExamples, Labels, TextExamples
from spectral_models.data.config import AnyDataConfig
from spectral_models.data.folders import LabelledFilesConfig
from spectral_models.data.labelled import LabelledTextsConfig
from spectral_models.data.readers import ImageReader, Reader
from spectral_models.data.source import SourceConfig, Table, load
from spectral_models.data.tokenizer import require_vocabulary
from spectral_models.evaluation.accuracy import logits_of
from spectral_models.evaluation.loop import Batch
from spectral_models.loss import StepLoss
from spectral_models.model import SpectralModel
from spectral_models.tasks.config import Kinds, TaskConfig
from spectral_models.tasks.task import Task
from spectral_models.tasks.texts import text_reasons, vocabulary_of


class LabelledTask(Task):
    """Base of tasks on rows with labels: a subclass makes labels of a table, and says what they are called.

    Rows have one input, of the role ``input``. readers: of files, by role.
    """

    data: Any
    held_out: Examples
    names: tuple[str, ...] | None = None

    def __init__(self, model: ModelConfig, data: SourceConfig, tokenizer: Tokenizer | None, split: str | None) -> None:
        self.model, self.data, self.tokenizer = model, data, tokenizer
        reader = model.reader()
        self.readers: dict[str, Reader] = dict(model.readers()) if reader is None else {"input": reader}
        train, held_out = load(data, self.readers) if split is None else (None, data.table(data.source, split))
        self.train = None if train is None else self.examples_of(train, train)
        self.held_out = self.examples_of(held_out, train)
        sizes = {role: read.size for role, read in self.readers.items() if isinstance(read, ImageReader) and read.size}
        of: dict[str, Any] = {"image_sizes": sizes} if reader is None and sizes else {"image_size": sizes.get("input")}
        length = None if isinstance(data, LabelledFilesConfig) else self.data.max_length
        self.model = model.with_data(labels=self.names, max_length=length, **of)

    def examples_of(self, table: Table, train: Table | None) -> Examples:
        """train: the table that a tokenizer may be learned from."""
        labels = self.labels(table)
        if "input" in self.readers:
            made = FileExamples(table.files("input"), labels, self.readers["input"])
            self.readers["input"] = made.reader
            return made
        tokenizer = self.tokenizer_for([] if train is None else train.texts("input"))
        return TextExamples(table.texts("input"), labels, tokenizer, self.data.max_length)

    def tokenizer_for(self, texts: Iterable[str]) -> Tokenizer:
        """The tokenizer; the first call makes it of these texts, where the data's config says that it is learned."""
        if self.tokenizer is None:
            size = vocabulary_of(self.model)
            self.tokenizer = self.data.tokenizer.build(texts, vocab_size=size)
            require_vocabulary(self.tokenizer, size, "the model's vocab_size")
        return self.tokenizer

    @abstractmethod
    def labels(self, table: Table) -> Labels:
        """The labels of a table's rows: (N,), (N, K), or for each row one label for each word."""

    def loss(self, model: Any, batch: Batch, step_count: Tensor | int | None = None, **options: Any) -> StepLoss:
        mask = batch.get("attention_mask")
        found: StepLoss = model.loss(batch["inputs"], batch["labels"], mask, step_count=step_count, **options)
        return found

    def logits(self, model: SpectralModel, batch: Batch) -> Tensor:
        """The logits of a batch, in float32."""
        return logits_of(model, batch)


class LabelledTaskConfig(TaskConfig):
    """Base of the configs of such tasks."""

    reads: ClassVar[Kinds] = (LabelledTextsConfig, LabelledFilesConfig)

    def data_kinds(self, model: ModelConfig) -> Kinds:
        return (LabelledTextsConfig,) if model.reader() is None else (LabelledFilesConfig,)

    def unsupported_reasons(self, model: ModelConfig, data: AnyDataConfig) -> list[str]:
        found = super().unsupported_reasons(model, data)
        if found or not isinstance(data, LabelledTextsConfig):
            return found
        return text_reasons(model, data.tokenizer, data.max_length)

    def architecture(self, model: ModelConfig) -> str:
        reader = model.reader()
        return f"SpectralFor{'Sequence' if reader is None else reader.modality.title()}Classification"
