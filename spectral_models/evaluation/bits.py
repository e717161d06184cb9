"""Bits per byte of a language model, and of xz."""

from __future__ import annotations

import lzma
import math

from torch import Tensor

from spectral_models.data import ContiguousWindows
from spectral_models.evaluation.loop import Batch, OnBatch, over
from spectral_models.model import SpectralModel


def bits_per_byte(
    model: SpectralModel, windows: ContiguousWindows, *, batch_size: int = 32, on_batch: OnBatch | None = None
) -> float:
    """Sum of -log2 p(token | the tokens before it in its window), each once, over the bytes of text they stand for.

    So models with different tokenizers compare: fewer tokens are no gain in themselves. Auxiliary losses do not count.
    The model should be in eval mode; UnsupportedInputError is raised where its losses are not finite. Under
    torch.distributed each process takes its share of the windows and all get the same number. on_batch: called with
    the number of windows of each batch.
    """
    losses = over(model, windows, next_token_losses, batch_size=batch_size, on_batch=on_batch)["losses"]
    return float(losses.sum()) / (windows.text_bytes * math.log(2))


def next_token_losses(model: SpectralModel, batch: Batch) -> dict[str, Tensor]:
    """losses: (B,) nats of the windows of a batch, for each the mean over the batch."""
    nats = model.loss(batch["input_ids"], batch["labels"]).nats.double()
    return {"losses": (nats / len(batch["labels"])).repeat(len(batch["labels"]))}


def xz_bits_per_byte(data: bytes | bytearray) -> float:
    """What ``xz -9`` needs for the same bytes, container included: the number a byte model should beat."""
    return 8 * len(lzma.compress(data, preset=9)) / len(data)
