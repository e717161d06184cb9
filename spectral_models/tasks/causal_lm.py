"""Causal language modelling: cross-entropy of next tokens, measured in bits per byte."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, ClassVar, Literal

from torch import Tensor

from spectral_models.config import ModelConfig
from spectral_models.data import DataConfig, RandomWindows, Tokenizer
from spectral_models.evaluation.bits import next_token_losses, xz_bits_per_byte
from spectral_models.evaluation.loop import Arrays, Batch
from spectral_models.loss import StepLoss
from spectral_models.model import SpectralModel
from spectral_models.tasks.config import Kinds, TaskConfig
from spectral_models.tasks.corpus import CorpusTask
from spectral_models.tasks.task import History, Reference


class CausalLM(CorpusTask):
    """Next tokens of text; each held-out byte is predicted once. The reference is ``xz -9`` on the same bytes."""

    headline: ClassVar[str] = "bits_per_byte"
    greater_is_better: ClassVar[bool] = False

    def __init__(self, model: ModelConfig, data: DataConfig, tokenizer: Tokenizer | None, split: str | None) -> None:
        super().__init__(model, data, tokenizer, split)
        self.held_out = self.windows
        self._xz = xz_bits_per_byte(self.text)

    def references(self) -> tuple[Reference, ...]:
        return (Reference("xz -9 on the same bytes", "xz_bits_per_byte", self._xz),)

    @staticmethod
    def loss(model: Any, batch: Batch, step_count: Tensor | int | None = None, **options: Any) -> StepLoss:
        """The labels of windows are shifted already."""
        loss: StepLoss = model.loss(batch["input_ids"], batch["labels"], step_count=step_count, **options)
        return loss

    def examples(self, batch_size: int, steps: int, seed: int) -> RandomWindows:
        return self.random_windows(batch_size, steps, seed)

    def read(self, model: SpectralModel, batch: Batch) -> dict[str, Tensor]:
        return next_token_losses(model, batch)

    def measures(self, arrays: Arrays) -> dict[str, float]:
        return {"bits_per_byte": float(arrays["losses"].sum()) / (self.windows.text_bytes * math.log(2))}

    def metrics(self, judged: dict[str, float]) -> dict[str, Any]:
        assert self.corpus is not None
        return {**super().metrics(judged), "bytes_per_token": self.corpus.train_bytes / len(self.corpus.train)}

    def draw(self, history: History, path: Path, title: str) -> None:
        from spectral_models.training.curve import plot_bits

        assert self.corpus is not None
        tokens_per_byte = len(self.corpus.train) / self.corpus.train_bytes
        plot_bits(history, path, title=title, tokens_per_byte=tokens_per_byte, reference=self._xz)


class CausalLMConfig(TaskConfig):
    """Next-token prediction by a strictly causal model; bits per byte of held-out text."""

    reads: ClassVar[Kinds] = (DataConfig,)

    type: Literal["causal_lm"] = "causal_lm"

    def architecture(self, model: ModelConfig) -> str:
        return "SpectralForCausalLM"

    def load(
        self, model: ModelConfig, data: DataConfig, *, tokenizer: Tokenizer | None = None, split: str | None = None
    ) -> CausalLM:
        return CausalLM(model, data, tokenizer, split)
