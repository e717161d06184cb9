"""What tasks on rows with labels share: rows are texts, images or recordings."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar

from torch import Tensor

from spectral_models.config import ModelConfig
from spectral_models.data import Tokenizer
from spectral_models.data.batches import Examples, FileExamples, Labels, TextExamples
from spectral_models.data.folders import LabelledFilesConfig
from spectral_models.data.labelled import LabelledTextsConfig
from spectral_models.data.readers import ImageReader, Reader
from spectral_models.data.source import SourceConfig, Table, load
from spectral_models.data.tokenizer import require_vocabulary
from spectral_models.evaluation.loop import Batch
from spectral_models.model import SpectralModel
from spectral_models.tasks.config import Kinds, TaskConfig
from spectral_models.tasks.task import Task
from spectral_models.tasks.vocabulary import vocabulary_of


class LabelledTask(Task):
    """Base of tasks on tables whose rows have one input and labels. A subclass defines :meth:`labels`.

    role: the column of the input. readers: readers of files, by role. names: names of the labels, by number. table: the
    held-out rows. train_table: the rows to train on; None if all are held out.
    """

    role: ClassVar[str] = "input"

    data: Any
    held_out: Examples
    names: tuple[str, ...] | None = None

    def __init__(self, model: ModelConfig, data: SourceConfig, tokenizer: Tokenizer | None, split: str | None) -> None:
        self.model, self.data, self.tokenizer = model, data, tokenizer
        reader = model.reader()
        self.readers: dict[str, Reader] = dict(model.readers()) if reader is None else {self.role: reader}
        train, self.table = load(data, self.readers) if split is None else (None, data.table(data.source, split))
        self.train_table = train
        self.train = None if train is None else self.examples_of(train, train)
        self.held_out = self.examples_of(self.table, train)
        sizes = {role: read.size for role, read in self.readers.items() if isinstance(read, ImageReader) and read.size}
        length, size = dict(data).get("max_length"), sizes.get(self.role)
        self.model = model.with_data(labels=self.names, max_length=length, image_size=size, image_sizes=sizes)

    def examples_of(self, table: Table, train: Table | None) -> Examples:
        """The examples of a table. train: the table to learn a tokenizer from, if it is to be learned."""
        labels = self.labels(table)
        if self.role in self.readers:
            files = FileExamples(table.files(self.role), labels, self.readers[self.role])
            self.readers[self.role] = files.reader
            return files
        tokenizer = self.tokenizer_for([] if train is None else train.texts(self.role))
        return TextExamples(table.texts(self.role), labels, tokenizer, self.data.max_length)

    def tokenizer_for(self, texts: Iterable[str]) -> Tokenizer:
        """The tokenizer. The first call builds it, and learns it from these texts if the data's config says so."""
        if self.tokenizer is None:
            size = vocabulary_of(self.model)
            self.tokenizer = self.data.tokenizer.build(texts, vocab_size=size)
            require_vocabulary(self.tokenizer, size, "the model's vocab_size")
        return self.tokenizer

    @abstractmethod
    def labels(self, table: Table) -> Labels:
        """The labels of a table's rows: (N,), (N, K), or a sequence of labels for each row."""

    def logits(self, model: SpectralModel, batch: Batch) -> Tensor:
        """The logits of a batch, in float32."""
        spec = model.only_input
        assert spec is not None
        logits: Tensor = model.run({spec.name: batch["inputs"]}, batch.get("attention_mask")).logits.float()
        return logits


class LabelledTaskConfig(TaskConfig):
    """Base of the configs of tasks that label texts, images or recordings."""

    reads: ClassVar[Kinds] = (LabelledTextsConfig, LabelledFilesConfig)

    def data_kinds(self, model: ModelConfig) -> Kinds:
        return (LabelledTextsConfig,) if model.reader() is None else (LabelledFilesConfig,)

    def architecture(self, model: ModelConfig) -> str:
        reader = model.reader()
        return f"SpectralFor{'Sequence' if reader is None else reader.modality.title()}Classification"
