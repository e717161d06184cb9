"""Bits per byte of a language model and of xz."""

from __future__ import annotations

import lzma
import math

from torch import Tensor

from spectral_models.data import ContiguousWindows
from spectral_models.evaluation.loop import Batch, OnBatch, map_examples
from spectral_models.model import SpectralModel


def bits_per_byte(
    model: SpectralModel, windows: ContiguousWindows, *, batch_size: int = 32, on_batch: OnBatch | None = None
) -> float:
    """Sum of -log2 p(token | earlier tokens of its window) over all tokens, divided by the bytes of their text.

    Comparable between tokenizers: it does not depend on the number of tokens. Auxiliary losses are left out. The model
    should be in eval mode. Raises UnsupportedInputError if its losses are not finite. Under torch.distributed each
    process evaluates its share of the windows, and all get the same number. on_batch: called with the number of windows
    of each batch.
    """
    losses = map_examples(model, windows, next_token_losses, batch_size=batch_size, on_batch=on_batch)["losses"]
    return float(losses.sum()) / (windows.text_bytes * math.log(2))


def next_token_losses(model: SpectralModel, batch: Batch) -> dict[str, Tensor]:
    """losses: (B,), the summed cross-entropy of the batch, in nats, over B."""
    nats = model.loss(batch["input_ids"], batch["labels"]).nats.double()
    return {"losses": (nats / len(batch["labels"])).repeat(len(batch["labels"]))}


def xz_bits_per_byte(data: bytes | bytearray) -> float:
    """Bits per byte of ``xz -9``, with its container: a language model should need fewer."""
    return 8 * len(lzma.compress(data, preset=9)) / len(data)
