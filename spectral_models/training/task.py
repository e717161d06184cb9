"""What a run trains a model for. The skeleton of a run knows no more of it than this."""

from __future__ import annotations

import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.utils.data import Dataset

from spectral_models.data import ByteTokenizer, Tokenizer
from spectral_models.data.byte_files import TOKENIZER
from spectral_models.data.subwords import read_tokenizer
from spectral_models.loss import StepLoss
from spectral_models.model import SpectralModel
from spectral_models.training.config import RunConfig

Batch = dict[str, Tensor]
Fingerprint = dict[str, dict[str, Any]]
"""Of each part of a run's data: how many there are of what, and their SHA-256 (``count``, ``what``, ``sha256``)."""
LossFunction = Callable[[Any, Batch, Tensor | int | None], StepLoss]


class InTraining(nn.Module):
    """What Trainer calls with a batch: a model, and the loss it makes of it."""

    accepts_loss_kwargs = True  # Trainer then leaves the division of a step to the loss

    def __init__(self, model: SpectralModel, loss: LossFunction) -> None:
        super().__init__()
        self.model = model
        self.loss = loss

    def forward(self, batch: Batch, step_count: Tensor | int | None = None) -> StepLoss:
        return self.loss(self.model, batch, step_count)


@dataclass(frozen=True)
class TrainingResult(ABC):
    """model: trained, in eval mode. history: everything that was logged."""

    model: SpectralModel
    history: list[dict[str, Any]]
    directory: Path

    @abstractmethod
    def report(self) -> str:
        """The held-out numbers, in a line or two."""


class Task(ABC):
    """The examples of a run, its loss, and the numbers it is judged by. ``Task(run, directory)`` reads the data.

    headline: the number that leads, as in ``eval_bits_per_byte``. tokenizer: None where no text is read.
    """

    headline: ClassVar[str]
    run: RunConfig
    tokenizer: Tokenizer | None

    @abstractmethod
    def fingerprint(self) -> Fingerprint:
        """What is trained and judged on; a run that is continued must read the same."""

    @abstractmethod
    def build(self) -> SpectralModel:
        """The model, freshly initialised."""

    @abstractmethod
    def examples(self) -> Dataset[Batch]:
        """A step's examples after another's, for all steps: each a function of its index alone."""

    collate: Callable[[Sequence[Batch]], Batch] | None = None
    """Examples to a batch; None stacks them."""

    @abstractmethod
    def loss(self, model: Any, batch: Batch, step_count: Tensor | int | None = None) -> StepLoss:
        """What the model makes of a batch. step_count: labels of the whole step, which the batch is a part of."""

    @abstractmethod
    def judge(self, model: SpectralModel) -> dict[str, float]:
        """Held-out numbers by name; the model is in eval mode. Every process calls it and gets the same."""

    @abstractmethod
    def describe(self, judged: dict[str, float]) -> str:
        """The same in words: ``held-out bits per byte 1.979``."""

    @abstractmethod
    def result(
        self, model: SpectralModel, judged: dict[str, float], history: list[dict[str, Any]], directory: Path
    ) -> TrainingResult: ...

    @abstractmethod
    def metrics(self, judged: dict[str, float]) -> dict[str, Any]:
        """What metrics.json holds before the history."""

    @abstractmethod
    def draw(self, history: list[dict[str, Any]], path: Path) -> None:
        """The learning curve, as a PNG."""


def kept_tokenizer(directory: Path) -> Tokenizer | None:
    """The tokenizer that a run began with: not learned again when it is resumed, nor by a second process."""
    return read_tokenizer(directory / "tokenizer") if (directory / "tokenizer" / TOKENIZER).exists() else None


def keep_tokenizer(directory: Path, tokenizer: Tokenizer) -> None:
    """Keep it there, whole or not at all; bytes need no keeping."""
    target = directory / "tokenizer"
    if target.exists() or isinstance(tokenizer, ByteTokenizer):
        return
    temporary = directory / f".tokenizer.writing-{os.getpid()}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    for name, content in tokenizer.files().items():
        (temporary / name).write_text(content, encoding="utf-8")
    temporary.rename(target)
