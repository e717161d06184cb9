"""Classifiers: shuffled batches of labelled texts, images or recordings, cross-entropy, held-out accuracy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from spectral_models.assembly import build_model
from spectral_models.data import Tokenizer
from spectral_models.data.batches import Examples, FileExamples, ShuffledBatches, TextExamples, padded
from spectral_models.data.labelled import LabelledConfig, LabelledTextsConfig
from spectral_models.data.labels import class_numbers, majority
from spectral_models.data.readers import ImageReader, file_reader
from spectral_models.data.source import load
from spectral_models.data.tokenizer import require_vocabulary
from spectral_models.evaluation import judge_classifier
from spectral_models.loss import StepLoss
from spectral_models.model import SpectralModel
from spectral_models.training.config import RunConfig
from spectral_models.training.curve import plot_accuracy
from spectral_models.training.task import Batch, Fingerprint, Task, TrainingResult, keep_tokenizer, kept_tokenizer
from spectral_models.variants.classifier import ClassifierConfig
from spectral_models.variants.encoder import TextEncoderConfig
from spectral_models.variants.encoding import EncoderConfig
from spectral_models.variants.vision_encoder import VisionEncoderConfig


@dataclass(frozen=True)
class ClassificationResult(TrainingResult):
    """accuracy and loss (nats): on what was held out. majority: the accuracy of one answer to all of it."""

    accuracy: float
    loss: float
    majority: float
    held_out: Examples

    def report(self) -> str:
        return (
            f"held-out accuracy       {self.accuracy:.4f}  (always the most frequent label: {self.majority:.4f}; "
            f"loss {self.loss:.3f} nats, {len(self.held_out):,} {self.held_out.what})"
        )


class ClassificationTask(Task):
    """All examples to train on, in a new order each epoch; held-out ones once each."""

    headline: ClassVar[str] = "accuracy"
    collate = staticmethod(padded)

    def __init__(self, run: RunConfig, directory: Path) -> None:
        assert isinstance(run.model, ClassifierConfig)
        assert isinstance(run.data, LabelledConfig)
        self.run = run
        self.tables = load(run.data)
        learned, names = class_numbers(self.tables[0], run.model.num_labels, run.model.labels)
        judged, _ = class_numbers(self.tables[1], run.model.num_labels, run.model.labels)
        self.labels = learned, judged
        self.tokenizer: Tokenizer | None = None
        self.train: Examples
        self.held_out: Examples
        encoder = run.model.encoder
        if isinstance(run.data, LabelledTextsConfig):
            assert isinstance(encoder, TextEncoderConfig)
            encoder = self._tokenised(encoder, run.data, directory)
        else:
            encoder = self._read(encoder)
        # The model carries the names, and how its inputs were read, so that whoever loads it can do the same.
        self.model_config = run.model.model_copy(update={"labels": names, "encoder": encoder})
        self.majority = majority(judged)

    def _tokenised(self, encoder: TextEncoderConfig, data: LabelledTextsConfig, directory: Path) -> EncoderConfig:
        """Texts as tokens; the encoder, that reads as many of each."""
        self.tokenizer = kept_tokenizer(directory) or data.tokenizer.build(
            self.tables[0].texts("input"), vocab_size=encoder.vocab_size
        )
        require_vocabulary(self.tokenizer, encoder.vocab_size, "model.encoder.vocab_size")
        keep_tokenizer(directory, self.tokenizer)
        self.train, self.held_out = (
            TextExamples(table.texts("input"), labels, self.tokenizer, data.max_length)
            for table, labels in zip(self.tables, self.labels, strict=True)
        )
        return encoder.model_copy(update={"max_length": data.max_length})

    def _read(self, encoder: EncoderConfig) -> EncoderConfig:
        """Images and recordings from their files; the encoder, that takes images of the size these have."""
        files, held_out = (table.files("input") for table in self.tables)
        train = FileExamples(files, self.labels[0], file_reader(encoder))
        self.train, self.held_out = train, FileExamples(held_out, self.labels[1], train.reader)
        if isinstance(encoder, VisionEncoderConfig) and isinstance(train.reader, ImageReader):
            return encoder.model_copy(update={"image_size": train.reader.size})
        return encoder

    def fingerprint(self) -> Fingerprint:
        parts = {"training": self.train, "held out": self.held_out}
        return {name: {"count": len(part), "what": part.what, "sha256": part.digest()} for name, part in parts.items()}

    def build(self) -> SpectralModel:
        return build_model(self.model_config)

    def examples(self) -> ShuffledBatches:
        training = self.run.training
        return ShuffledBatches(self.train, training.batch_size, training.steps, training.seed)

    def loss(self, model: SpectralModel, batch: Batch, step_count: Tensor | int | None = None) -> StepLoss:
        return model.loss(
            batch["inputs"],
            batch["labels"],
            batch.get("attention_mask"),
            label_smoothing=self.run.training.label_smoothing,
            step_count=step_count,
        )

    def judge(self, model: SpectralModel) -> dict[str, float]:
        judged = judge_classifier(model, self.held_out)
        return {"accuracy": judged.accuracy, "loss": judged.loss}

    def describe(self, judged: dict[str, float]) -> str:
        return f"held-out accuracy {judged['accuracy']:.4f}, loss {judged['loss']:.3f}"

    def result(
        self, model: SpectralModel, judged: dict[str, float], history: list[dict[str, Any]], directory: Path
    ) -> ClassificationResult:
        return ClassificationResult(
            model, history, directory, judged["accuracy"], judged["loss"], self.majority, self.held_out
        )

    def metrics(self, judged: dict[str, float]) -> dict[str, Any]:
        return {
            **judged,
            "majority": self.majority,
            self.train.what: len(self.train),
            f"held_out_{self.train.what}": len(self.held_out),
            **({} if self.tokenizer is None else {"tokens": self.tokenizer.vocab_size}),
        }

    def draw(self, history: list[dict[str, Any]], path: Path) -> None:
        training = self.run.training
        title = f"{len(self.train):,} {self.train.what}: {training.steps} steps of {training.batch_size}"
        plot_accuracy(history, path, title=title, majority=self.majority, what=self.train.what)
