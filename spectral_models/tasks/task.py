"""A task with its data: the examples, the loss, and the numbers by which a model is judged."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.utils.data import Dataset

from spectral_models.config import ModelConfig
from spectral_models.data import Tokenizer
from spectral_models.data.batches import Examples, ShuffledBatches, padded
from spectral_models.evaluation.loop import Arrays, Batch, Collate, Indexed, OnBatch, over
from spectral_models.inputs import InputSpec
from spectral_models.loss import StepLoss
from spectral_models.model import SpectralModel

Fingerprint = dict[str, dict[str, Any]]
"""Of each part of the data: how many examples of what it has, and their SHA-256 (``count``, ``what``, ``sha256``)."""
History = Sequence[dict[str, Any]]
"""What training logged, a row for each time."""


class Reference(NamedTuple):
    """What the headline compares with: a constant answer, say. key: its name among a run's metrics."""

    what: str
    key: str
    value: float


class HeldOut(Indexed, Protocol):
    """Examples to judge on. what: they are, in the plural. lengths: (N,), by which batches are made."""

    what: str

    def lengths(self) -> Tensor: ...


class Task(ABC):
    """What a run trains for, with its data read. Training and evaluation know no more of it than this.

    A subclass defines the loss of a batch (:meth:`loss`), what is read of each held-out example (:meth:`read`), and the
    numbers made of that (:meth:`measures`).

    headline: the number that leads. greater_is_better: whether the best evaluation has the largest; None where a class
    does not say. digits: shown after the point. units: of numbers, by name. model: the config of the
    model, with what the data add to it. tokenizer: None where no text is read. train: None where all examples are held
    out.
    """

    headline: ClassVar[str]
    greater_is_better: ClassVar[bool | None] = None
    digits: ClassVar[int] = 4
    units: ClassVar[Mapping[str, str]] = {}

    model: ModelConfig
    tokenizer: Tokenizer | None = None
    train: Examples | None
    held_out: HeldOut
    reference: Reference | None = None

    def fingerprint(self) -> Fingerprint:
        """What is trained and judged on; a run that is continued must read the same."""
        assert self.train is not None
        assert isinstance(self.held_out, Examples)
        return {
            name: {"count": len(part), "what": part.what, "sha256": part.digest()}
            for name, part in (("training", self.train), ("held out", self.held_out))
        }

    def examples(self, batch_size: int, steps: int, seed: int) -> Dataset[Batch]:
        """One step's examples after another's, for all steps; each is a function of its index alone."""
        assert self.train is not None
        return ShuffledBatches(self.train, batch_size, steps, seed)

    collate: Collate = staticmethod(padded)
    """Examples to a batch."""

    @abstractmethod
    def loss(self, model: Any, batch: Batch, step_count: Tensor | int | None = None, **options: Any) -> StepLoss:
        """The loss of a batch. step_count: labels of the whole step, of which the batch is a part.

        options: ``label_smoothing``, if the task's config takes it.
        """

    @abstractmethod
    def read(self, model: SpectralModel, batch: Batch) -> dict[str, Tensor]:
        """Tensors (B, ...) of a held-out batch, from which the measures are computed; the model is in eval mode."""

    @abstractmethod
    def measures(self, arrays: Arrays) -> dict[str, float]:
        """Numbers by name, the headline among them. arrays: what :meth:`read` gave of all held-out examples."""

    def judge(self, model: SpectralModel, *, batch_size: int = 32, on_batch: OnBatch | None = None) -> dict[str, float]:
        """Held-out numbers by name. Every process calls it and gets the same ones."""
        options: dict[str, Any] = {"batch_size": batch_size, "on_batch": on_batch, "lengths": self.held_out.lengths()}
        return self.measures(over(model, self.held_out, self.read, collate=self.collate, **options))

    def metrics(self, judged: dict[str, float]) -> dict[str, Any]:
        """What a run's metrics.json holds before its history."""
        counts = {} if self.train is None else {self.train.what: len(self.train)}
        return {
            **judged,
            **({} if self.reference is None else {self.reference.key: self.reference.value}),
            **counts,
            f"held_out_{self.held_out.what}": len(self.held_out),
            **({} if self.tokenizer is None else {"tokens": self.tokenizer.vocab_size}),
        }

    def lines(self, judged: dict[str, float]) -> list[tuple[str, str]]:
        """Names and values for people: the headline first, what was measured last."""
        ordered = {self.headline: judged[self.headline], **judged}
        shown = [
            (spelled(name), f"{value:.{self.digits}f}{self.units.get(name, '')}") for name, value in ordered.items()
        ]
        if self.reference is not None:
            name, value = shown[0]
            shown[0] = (name, f"{value}  ({self.reference.what}: {self.reference.value:.{self.digits}f})")
        return [*shown, ("measured on", self.measured_on())]

    def measured_on(self) -> str:
        return f"{len(self.held_out):,} {self.held_out.what}"

    def draw(self, history: History, path: Path, title: str) -> None:
        """The learning curve, as a PNG."""
        from spectral_models.training.curve import plot_headline

        plot_headline(
            history,
            path,
            title=title,
            headline=self.headline,
            digits=self.digits,
            what=self.held_out.what,
            reference=self.reference and (self.reference.what, self.reference.value),
        )


def spelled(name: str) -> str:
    return name.replace("_", " ")


def specs_of(model: ModelConfig) -> tuple[InputSpec, ...]:
    """The inputs of the model that a config describes."""
    with torch.device("meta"):
        return model.build().input_specs()
