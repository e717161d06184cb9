"""Bits per byte of a language model, and of xz."""

from __future__ import annotations

import lzma
import math
from collections.abc import Callable

import torch

from spectral_layers import fixed_weights
from spectral_models.arguments import whole
from spectral_models.data import ContiguousWindows
from spectral_models.errors import not_numbers
from spectral_models.model import SpectralModel


@torch.no_grad()
def bits_per_byte(
    model: SpectralModel,
    windows: ContiguousWindows,
    *,
    batch_size: int = 32,
    on_batch: Callable[[int], None] | None = None,
) -> float:
    """Sum of -log2 p(token | the tokens before it in its window), each once, over the bytes of text they stand for.

    So models with different tokenizers compare: fewer tokens are no gain in themselves. Auxiliary losses do not count.
    The model should be in eval mode; UnsupportedInputError is raised where its losses are not finite. Under
    torch.distributed each process takes its share of the windows and all get
    the same, exact number. on_batch: called with the number of windows of each batch.
    """
    batch_size = whole("batch_size", batch_size, least=1)
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    rank, world = (torch.distributed.get_rank(), torch.distributed.get_world_size()) if distributed else (0, 1)
    device = next(model.parameters()).device
    total = torch.zeros((), dtype=torch.float64, device=device)
    mine = range(rank, len(windows), world)
    with fixed_weights(model):
        for start in range(0, len(mine), batch_size):
            batch = [windows[index] for index in mine[start : start + batch_size]]
            input_ids = torch.stack([window["input_ids"] for window in batch]).to(device)
            labels = torch.stack([window["labels"] for window in batch]).to(device)
            total += model.loss(input_ids, labels).nats.double()
            if on_batch is not None:
                on_batch(len(batch))
    if distributed:
        torch.distributed.all_reduce(total)
    if not total.isfinite():
        raise not_numbers("losses")
    return float(total) / (windows.text_bytes * math.log(2))


def xz_bits_per_byte(data: bytes | bytearray) -> float:
    """What ``xz -9`` needs for the same bytes, container included: the number a byte model should beat."""
    return 8 * len(lzma.compress(data, preset=9)) / len(data)
