"""How often a classifier is right."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from spectral_models.data.batches import Examples, padded
from spectral_models.evaluation.loop import Batch, OnBatch, over
from spectral_models.model import SpectralModel


@dataclass(frozen=True, slots=True)
class Judgement:
    """accuracy: the share of examples whose likeliest label is theirs. loss: mean cross-entropy in nats, over count."""

    accuracy: float
    loss: float
    count: int


def judge_classifier(
    model: SpectralModel, examples: Examples, *, batch_size: int = 64, on_batch: OnBatch | None = None
) -> Judgement:
    """Every example once, those of like length together; padding changes nothing, so the batch size does not either.

    Auxiliary losses and label smoothing do not count. The model should be in eval mode. Under torch.distributed each
    process takes its share and all get the same numbers. on_batch: called with the number of examples of each batch.
    """
    arrays = over(
        model,
        examples,
        lambda model, batch: chosen_labels(logits_of(model, batch), batch["labels"]),
        collate=padded,
        lengths=examples.lengths(),
        batch_size=batch_size,
        on_batch=on_batch,
    )
    right = arrays["chosen"] == arrays["labels"]
    return Judgement(float(right.mean()), float(arrays["losses"].mean()), len(examples))


def chosen_labels(logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Of each row its label, the likeliest label, and the cross-entropy in nats (losses): all (B,)."""
    losses = F.cross_entropy(logits, labels, reduction="none").double()
    return {"labels": labels, "chosen": logits.argmax(-1), "losses": losses}


def logits_of(model: SpectralModel, batch: Batch) -> Tensor:
    """The logits in float32 of a batch ``inputs``, ``attention_mask`` for a model of one input."""
    spec = model.only_input
    assert spec is not None
    logits: Tensor = model.run({spec.name: batch["inputs"]}, batch.get("attention_mask")).logits.float()
    return logits
