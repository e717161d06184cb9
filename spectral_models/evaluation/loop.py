"""The evaluation loop: what is read of each example, over batches and processes."""

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
    """Examples by index."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Batch: ...


@torch.no_grad()
def over(
    model: SpectralModel,
    examples: Indexed,
    read: Callable[[SpectralModel, Batch], dict[str, Tensor]],
    *,
    collate: Collate = default_collate,
    lengths: Tensor | None = None,
    batch_size: int = 32,
    on_batch: OnBatch | None = None,
) -> Arrays:
    """What ``read`` gives of each example, each once: by name, an array (N, ...) in the order of the examples.

    read: tensors (B, ...) of a batch; ``losses`` must be finite, or UnsupportedInputError is raised. lengths: (N,);
    batches then hold examples of similar lengths. The model should be in eval mode. Under torch.distributed each
    process reads its share, and all get the same arrays. on_batch: called with the number of examples of each batch.
    """
    batch_size = whole("batch_size", batch_size, least=1)
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    rank, world = (torch.distributed.get_rank(), torch.distributed.get_world_size()) if distributed else (0, 1)
    device = next(model.parameters()).device
    count = len(examples)
    order = torch.arange(count) if lengths is None else lengths.argsort(stable=True)
    mine: list[int] = order[rank::world].tolist()
    found: list[tuple[list[int], Arrays]] = []
    with fixed_weights(model):
        for start in range(0, len(mine), batch_size):
            indices = mine[start : start + batch_size]
            batch = {
                name: tensor.to(device) for name, tensor in collate([examples[index] for index in indices]).items()
            }
            found.append((indices, {name: tensor.cpu().numpy() for name, tensor in read(model, batch).items()}))
            if on_batch is not None:
                on_batch(len(indices))
    if distributed:
        shares: list[Any] = [None] * world
        torch.distributed.all_gather_object(shares, found)
        found = [batch for share in shares for batch in share]
    back = np.argsort(np.concatenate([indices for indices, _ in found]), kind="stable")
    arrays = {name: np.concatenate([batch[name] for _, batch in found])[back] for name in found[0][1]}
    if not np.isfinite(arrays.get("losses", 0.0)).all():
        raise not_numbers("losses")
    return arrays
