"""Classifiers of texts: shuffled batches of labelled texts, the label's cross-entropy, held-out accuracy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from spectral_models.assembly import build_model
from spectral_models.data.batches import LabelledTokens, ShuffledBatches, padded
from spectral_models.data.labelled import LabelledData, LabelledDataConfig, load_labelled
from spectral_models.data.tokenizer import require_vocabulary
from spectral_models.evaluation import judge_classifier
from spectral_models.loss import StepLoss
from spectral_models.model import SpectralModel
from spectral_models.training.config import RunConfig
from spectral_models.training.curve import plot_accuracy
from spectral_models.training.task import Batch, Task, TrainingResult, keep_tokenizer, kept_tokenizer
from spectral_models.variants.classifier import Classifier, ClassifierConfig
from spectral_models.variants.encoder import TextEncoderConfig


@dataclass(frozen=True)
class ClassificationResult(TrainingResult):
    """accuracy and loss (nats): on held-out texts. majority: the accuracy of one answer to all of them."""

    model: Classifier
    accuracy: float
    loss: float
    majority: float
    data: LabelledData

    def report(self) -> str:
        return (
            f"held-out accuracy       {self.accuracy:.4f}  (always the most frequent label: {self.majority:.4f}; "
            f"loss {self.loss:.3f} nats, {len(self.data.validation.texts):,} texts)"
        )


class ClassificationTask(Task):
    """All texts to train on, in a new order each epoch; held-out ones once each."""

    headline: ClassVar[str] = "accuracy"
    collate = staticmethod(padded)

    def __init__(self, run: RunConfig, directory: Path) -> None:
        assert isinstance(run.model, ClassifierConfig)
        assert isinstance(run.model.encoder, TextEncoderConfig)
        assert isinstance(run.data, LabelledDataConfig)
        self.run = run
        self.data = load_labelled(run.data, run.model.num_labels, run.model.labels)
        vocab_size = run.model.encoder.vocab_size
        self.tokenizer = kept_tokenizer(directory) or run.data.tokenizer.build(
            self.data.train.texts, vocab_size=vocab_size
        )
        require_vocabulary(self.tokenizer, vocab_size, "model.encoder.vocab_size")
        keep_tokenizer(directory, self.tokenizer)
        # The model carries the names, so that whoever loads it can say them.
        self.model_config = run.model.model_copy(update={"labels": self.data.names})
        self.train = LabelledTokens(self.data.train, self.tokenizer, run.data.max_length)
        self.held_out = LabelledTokens(self.data.validation, self.tokenizer, run.data.max_length)
        self.majority = self.data.validation.majority()

    def build(self) -> SpectralModel:
        return build_model(self.model_config)

    def examples(self) -> ShuffledBatches:
        training = self.run.training
        return ShuffledBatches(self.train, training.batch_size, training.steps, training.seed)

    def loss(self, model: Classifier, batch: Batch, step_count: Tensor | int | None = None) -> StepLoss:
        return model.loss(
            batch["inputs"],
            batch["labels"],
            batch["attention_mask"],
            label_smoothing=self.run.training.label_smoothing,
            step_count=step_count,
        )

    def judge(self, model: SpectralModel) -> dict[str, float]:
        assert isinstance(model, Classifier)
        judged = judge_classifier(model, self.held_out)
        return {"accuracy": judged.accuracy, "loss": judged.loss}

    def describe(self, judged: dict[str, float]) -> str:
        return f"held-out accuracy {judged['accuracy']:.4f}, loss {judged['loss']:.3f}"

    def result(
        self, model: SpectralModel, judged: dict[str, float], history: list[dict[str, Any]], directory: Path
    ) -> ClassificationResult:
        assert isinstance(model, Classifier)
        return ClassificationResult(
            model, history, directory, judged["accuracy"], judged["loss"], self.majority, self.data
        )

    def metrics(self, judged: dict[str, float]) -> dict[str, Any]:
        return {
            **judged,
            "majority": self.majority,
            "texts": len(self.train),
            "held_out_texts": len(self.held_out),
            "tokens": self.tokenizer.vocab_size,
        }

    def draw(self, history: list[dict[str, Any]], path: Path) -> None:
        training = self.run.training
        title = f"{len(self.train):,} texts: {training.steps} steps of {training.batch_size}"
        plot_accuracy(history, path, title=title, majority=self.majority)
