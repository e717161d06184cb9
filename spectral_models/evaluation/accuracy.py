"""Logits, predictions and losses of classifiers."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from spectral_models.evaluation.loop import Batch
from spectral_models.model import SpectralModel


def chosen_labels(logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Each row's label, its likeliest label (chosen), and its cross-entropy in nats (losses): all (B,)."""
    losses = F.cross_entropy(logits, labels, reduction="none").double()
    return {"labels": labels, "chosen": logits.argmax(-1), "losses": losses}


def logits_of(model: SpectralModel, batch: Batch) -> Tensor:
    """The float32 logits of a batch with ``inputs`` and, if present, ``attention_mask``, by a model with one input."""
    spec = model.only_input
    assert spec is not None
    logits: Tensor = model.run({spec.name: batch["inputs"]}, batch.get("attention_mask")).logits.float()
    return logits
