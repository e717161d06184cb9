"""Memory for large results on a CPU, where page faults can cost more than the arithmetic."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def unwritten(shape: Sequence[int], like: Tensor) -> Tensor:
    """An uninitialised contiguous tensor of that shape, in ``like``'s dtype and on its device.

    On a CPU the memory is numpy's, which asks for huge pages and so avoids most page faults; torch does so only if an
    environment variable is set.
    """
    if like.device.type != "cpu":
        return torch.empty(shape, dtype=like.dtype, device=like.device)
    keep_freed_memory()
    size = torch.Size(shape)
    memory = np.empty(size.numel() * like.element_size(), np.uint8)
    return torch.from_numpy(memory).view(like.dtype).view(size)


@functools.cache
def keep_freed_memory() -> None:
    """Make the C library keep freed blocks of up to 31 MiB, by freeing one of that size.

    Before that, glibc returns a block's buffers to the system after every use, and the next use faults them in again.
    This tensor's pages are never touched.
    """
    torch.empty(31 << 20, dtype=torch.uint8, device="cpu")
