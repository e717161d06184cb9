"""Language models: windows of a corpus, the next token's cross-entropy, bits per byte."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from spectral_models.assembly import build_model
from spectral_models.data import ContiguousWindows, Corpus, DataConfig, RandomWindows, Tokenizer, load_corpus
from spectral_models.data.tokenizer import require_vocabulary
from spectral_models.evaluation import bits_per_byte, xz_bits_per_byte
from spectral_models.loss import StepLoss
from spectral_models.model import SpectralModel
from spectral_models.training.config import RunConfig
from spectral_models.training.curve import plot_bits
from spectral_models.training.task import Batch, Fingerprint, Task, TrainingResult, keep_tokenizer, kept_tokenizer
from spectral_models.variants.language_model import LanguageModelConfig


@dataclass(frozen=True)
class LanguageResult(TrainingResult):
    """bits_per_byte: the model's, and xz -9's, on the same held-out text."""

    bits_per_byte: float
    xz_bits_per_byte: float
    corpus: Corpus

    def report(self) -> str:
        return (
            f"held-out bits per byte  {self.bits_per_byte:.3f}  (xz -9 on the same bytes: {self.xz_bits_per_byte:.3f})"
        )


class LanguageTask(Task):
    """Random windows of the documents to train on; consecutive ones of those held out."""

    headline: ClassVar[str] = "bits_per_byte"

    def __init__(self, run: RunConfig, directory: Path) -> None:
        assert isinstance(run.model, LanguageModelConfig)
        assert isinstance(run.data, DataConfig)
        self.run = run
        self.data = run.data
        self.corpus = load_corpus(run.data, vocab_size=run.model.vocab_size, tokenizer=kept_tokenizer(directory))
        self.tokenizer: Tokenizer = self.corpus.tokenizer
        require_vocabulary(self.tokenizer, run.model.vocab_size, "model.vocab_size")
        keep_tokenizer(directory, self.tokenizer)
        self.held_out = ContiguousWindows(self.corpus.validation, self.data.context, self.corpus.validation_bytes)

    def fingerprint(self) -> Fingerprint:
        parts = {"training": self.corpus.train, "held out": self.corpus.validation}
        return {
            name: {"count": len(tokens), "what": "tokens", "sha256": hashlib.sha256(tokens.numpy().data).hexdigest()}
            for name, tokens in parts.items()
        }

    def build(self) -> SpectralModel:
        return build_model(self.run.model)

    def examples(self) -> RandomWindows:
        training = self.run.training
        return RandomWindows(self.corpus.train, self.data.context, training.steps * training.batch_size, training.seed)

    @staticmethod
    def loss(model: SpectralModel, batch: Batch, step_count: Tensor | int | None = None) -> StepLoss:
        """Cross-entropy of the next token; labels are shifted already."""
        return model.loss(batch["input_ids"], batch["labels"], step_count=step_count)

    def judge(self, model: SpectralModel) -> dict[str, float]:
        return {"bits_per_byte": bits_per_byte(model, self.held_out)}

    def describe(self, judged: dict[str, float]) -> str:
        return f"held-out bits per byte {judged['bits_per_byte']:.3f}"

    @cached_property
    def xz(self) -> float:
        return xz_bits_per_byte(self.corpus.validation_text)

    def result(
        self, model: SpectralModel, judged: dict[str, float], history: list[dict[str, Any]], directory: Path
    ) -> LanguageResult:
        return LanguageResult(model, history, directory, judged["bits_per_byte"], self.xz, self.corpus)

    def metrics(self, judged: dict[str, float]) -> dict[str, Any]:
        return {
            "bits_per_byte": judged["bits_per_byte"],
            "xz_bits_per_byte": self.xz,
            "tokens": self.tokenizer.vocab_size,
            "bytes_per_token": self.corpus.train_bytes / len(self.corpus.train),
        }

    def draw(self, history: list[dict[str, Any]], path: Path) -> None:
        training = self.run.training
        title = f"{self.corpus.source}: {training.steps} steps of {training.batch_size} sequences"
        tokens_per_byte = len(self.corpus.train) / self.corpus.train_bytes
        plot_bits(history, path, title=title, tokens_per_byte=tokens_per_byte, reference=self.xz)
