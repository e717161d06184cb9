"""The base of tasks: examples to train on, the loss, and the measures on held-out examples."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

from torch import Tensor
from torch.utils.data import Dataset

from spectral_models.config import ModelConfig
from spectral_models.data import Tokenizer
from spectral_models.data.batches import Examples, ShuffledBatches, padded
from spectral_models.evaluation.loop import Arrays, Batch, Collate, Indexed, OnBatch, map_examples
from spectral_models.loss import StepLoss
from spectral_models.model import SpectralModel

Fingerprint = dict[str, dict[str, Any]]
"""By part of the data: the number of its examples, what they are, their SHA-256 (``count``, ``what``, ``sha256``)."""
History = Sequence[dict[str, Any]]
"""The rows that training logged."""


class Reference(NamedTuple):
    """A value to compare the headline with, such as that of a constant prediction.

    what: what has this value, for people. key: its name in ``metrics.json``.
    """

    what: str
    key: str
    value: float


class HeldOut(Indexed, Protocol):
    """Held-out examples. what: a plural noun for them. lengths: (N,), for batches of similar lengths."""

    what: str

    def lengths(self) -> Tensor: ...


class Task(ABC):
    """Base of tasks, with their data: the whole interface that training and evaluation use.

    A subclass defines what is computed for each held-out example (:meth:`read`), the measures from that
    (:meth:`measures`), and, if the default does not fit, the loss of a batch (:meth:`loss`).

    headline: the name of the main measure. greater_is_better: whether larger values of it are better; None if the class
    does not say. digits: decimals shown. units: units of measures, by name. model: the model's config, completed from
    the data: names of labels, sizes of images. tokenizer: None if no text is read. train: None if all examples are held
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

    def fingerprint(self) -> Fingerprint:
        """Identifies the data: a resumed run must have the same fingerprint."""
        assert self.train is not None
        assert isinstance(self.held_out, Examples)
        return {
            name: {"count": len(part), "what": part.what, "sha256": part.digest()}
            for name, part in (("training", self.train), ("held out", self.held_out))
        }

    def examples(self, batch_size: int, steps: int, seed: int) -> Dataset[Batch]:
        """The training examples of all steps, one step after another; item i is a function of (seed, i) alone."""
        assert self.train is not None
        return ShuffledBatches(self.train, batch_size, steps, seed)

    collate: Collate = staticmethod(padded)
    """Makes a batch of examples."""

    def loss(self, model: Any, batch: Batch, step_count: Tensor | int | None = None, **options: Any) -> StepLoss:
        """The model's loss of a batch with ``inputs``, ``labels`` and, for sequences, ``attention_mask``.

        step_count: number of labels of the whole optimiser step. options: ``label_smoothing``, if the task's config
        takes it.
        """
        mask = batch.get("attention_mask")
        loss: StepLoss = model.loss(batch["inputs"], batch["labels"], mask, step_count=step_count, **options)
        return loss

    @abstractmethod
    def read(self, model: SpectralModel, batch: Batch) -> dict[str, Tensor]:
        """Tensors (B, ...) by name, from which the measures are computed. batch: held-out; the model is in eval mode.

        ``losses``, if there are any, must be finite.
        """

    @abstractmethod
    def measures(self, arrays: Arrays) -> dict[str, float]:
        """The measures by name, the headline included. arrays: (N, ...), by name, from :meth:`read` on all examples."""

    def judge(self, model: SpectralModel, *, batch_size: int = 32, on_batch: OnBatch | None = None) -> dict[str, float]:
        """The held-out measures by name. Under torch.distributed every process calls it and gets the same values."""
        options: dict[str, Any] = {"batch_size": batch_size, "on_batch": on_batch, "lengths": self.held_out.lengths()}
        return self.measures(map_examples(model, self.held_out, self.read, collate=self.collate, **options))

    def references(self) -> tuple[Reference, ...]:
        """What to compare the headline with; asked for after training."""
        return ()

    def metrics(self, judged: dict[str, float]) -> dict[str, Any]:
        """The contents of a run's ``metrics.json``, without the history. judged: from :meth:`judge`."""
        return {
            **judged,
            **{reference.key: reference.value for reference in self.references()},
            **({} if self.train is None else {self.train.what: len(self.train)}),
            f"held_out_{self.held_out.what}": len(self.held_out),
            **({} if self.tokenizer is None else {"tokens": self.tokenizer.vocab_size}),
        }

    def lines(self, judged: dict[str, float]) -> list[tuple[str, str]]:
        """Names and values as text: the headline first, the size of the held-out data last."""
        ordered = {self.headline: judged[self.headline], **judged}
        shown = [
            (spelled(name), f"{value:.{self.digits}f}{self.units.get(name, '')}") for name, value in ordered.items()
        ]
        if references := [f"{what}: {value:.{self.digits}f}" for what, _, value in self.references()]:
            name, value = shown[0]
            shown[0] = (name, f"{value}  ({'; '.join(references)})")
        return [*shown, ("measured on", self.measured_on())]

    def measured_on(self) -> str:
        """The size of the held-out data, as text."""
        return f"{len(self.held_out):,} {self.held_out.what}"

    def draw(self, history: History, path: Path, title: str) -> None:
        """Plot the learning curve to a PNG file."""
        from spectral_models.training.curve import plot_headline

        plot_headline(
            history,
            path,
            title=title,
            headline=self.headline,
            digits=self.digits,
            what=self.held_out.what,
            references={what: value for what, _, value in self.references()},
        )


def spelled(name: str) -> str:
    return name.replace("_", " ")
