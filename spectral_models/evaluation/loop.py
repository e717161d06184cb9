"""The evaluation loop, over batches and processes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import default_collate

from spectral_layers import fixed_weights
from spectral_models.arguments import whole
from spectral_models.errors import not_numbers
from spectral_models.model import SpectralModel

Batch = dict[str, Tensor]
Arrays = dict[str, NDArray[Any]]
Collate = Callable[[list[Batch]], Batch]
OnBatch = Callable[[int], None]


class Indexed(Protocol):
    """Examples by index: a map-style dataset."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Batch: ...


@torch.no_grad()
def map_examples(
    model: SpectralModel,
    examples: Indexed,
    read: Callable[[SpectralModel, Batch], dict[str, Tensor]],
    *,
    collate: Collate = default_collate,
    lengths: Tensor | None = None,
    batch_size: int = 32,
    on_batch: OnBatch | None = None,
) -> Arrays:
    """Calls ``read`` on all examples, in batches: by name, arrays (N, ...) in the order of the examples.

    read: returns tensors (B, ...) by name for a batch. lengths: (N,), to batch examples of similar lengths together.
    The model should be in eval mode. Under torch.distributed each process reads its share, and all get the same arrays.
    on_batch: called with the number of examples of each batch. Raises UnsupportedInputError if ``losses`` are not
    finite.
    """
    batch_size = whole("batch_size", batch_size, least=1)
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    rank, world = (torch.distributed.get_rank(), torch.distributed.get_world_size()) if distributed else (0, 1)
    device = next(model.parameters()).device
    count = len(examples)
    order = torch.arange(count) if lengths is None else lengths.argsort(stable=True)
    mine: list[int] = order[rank::world].tolist()
    results: list[tuple[list[int], Arrays]] = []
    with fixed_weights(model):
        for start in range(0, len(mine), batch_size):
            indices = mine[start : start + batch_size]
            batch = collate([examples[index] for index in indices])
            values = read(model, {name: tensor.to(device) for name, tensor in batch.items()})
            results.append((indices, {name: tensor.cpu().numpy() for name, tensor in values.items()}))
            if on_batch is not None:
                on_batch(len(indices))
    if distributed:
        shares: list[Any] = [None] * world
        torch.distributed.all_gather_object(shares, results)
        results = [result for share in shares for result in share]
    back = np.argsort(np.concatenate([indices for indices, _ in results]), kind="stable")
    arrays = {name: np.concatenate([values[name] for _, values in results])[back] for name in results[0][1]}
    if not np.isfinite(arrays.get("losses", 0.0)).all():
        raise not_numbers("losses")
    return arrays
