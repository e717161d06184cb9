"""How often a classifier is right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from spectral_layers import fixed_weights
from spectral_models.arguments import whole
from spectral_models.data.batches import Examples, padded
from spectral_models.errors import not_numbers
from spectral_models.model import SpectralModel


@dataclass(frozen=True, slots=True)
class Judgement:
    """accuracy: the share of examples whose likeliest label is theirs. loss: mean cross-entropy in nats, over count."""

    accuracy: float
    loss: float
    count: int


@torch.no_grad()
def judge_classifier(
    model: SpectralModel,
    examples: Examples,
    *,
    batch_size: int = 64,
    on_batch: Callable[[int], None] | None = None,
) -> Judgement:
    """Every example once, those of like length together; padding changes nothing, so the batch size does not either.

    Auxiliary losses and label smoothing do not count. The model should be in eval mode. Under torch.distributed each
    process takes its share and all get the same numbers. on_batch: called with the number of examples of each batch.
    """
    batch_size = whole("batch_size", batch_size, least=1)
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    rank, world = (torch.distributed.get_rank(), torch.distributed.get_world_size()) if distributed else (0, 1)
    device = next(model.parameters()).device
    right, nats = (torch.zeros((), dtype=torch.float64, device=device) for _ in range(2))
    mine: list[int] = examples.lengths().argsort(stable=True)[rank::world].tolist()
    spec = model.only_input
    assert spec is not None
    with fixed_weights(model):
        for start in range(0, len(mine), batch_size):
            batch = padded([examples[index] for index in mine[start : start + batch_size]])
            batch = {name: tensor.to(device) for name, tensor in batch.items()}
            labels = batch["labels"]
            logits = model.run({spec.name: batch["inputs"]}, batch.get("attention_mask")).logits.float()
            right += (logits.argmax(-1) == labels).sum()
            nats += F.cross_entropy(logits, labels, reduction="sum")
            if on_batch is not None:
                on_batch(len(labels))
    if distributed:
        torch.distributed.all_reduce(right)
        torch.distributed.all_reduce(nats)
    if not nats.isfinite():
        raise not_numbers("losses")
    return Judgement(float(right) / len(examples), float(nats) / len(examples), len(examples))
