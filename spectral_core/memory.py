"""Memory for large results on a CPU, where asking the system for it can cost more than the arithmetic."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def unwritten(shape: Sequence[int], like: Tensor) -> Tensor:
    """Unwritten memory for a result of that shape, contiguous, of ``like``'s dtype and device.

    Where the system maps memory as it is touched, large results cost more time in page faults than in arithmetic. numpy
    asks for huge pages, torch does not unless an environment variable says so.
    """
    if like.device.type != "cpu":
        return torch.empty(shape, dtype=like.dtype, device=like.device)
    keep_freed_memory()
    size = torch.Size(shape)
    memory = np.empty(size.numel() * like.element_size(), np.uint8)
    return torch.from_numpy(memory).view(like.dtype).view(size)


@functools.cache
def keep_freed_memory() -> None:
    """Let the C library keep freed blocks of up to 31 MiB, as in any program that once freed one so large.

    Until then glibc gives a block's buffers back to the system after every use, and faults them in again for the next.
    No page of this tensor is touched.
    """
    torch.empty(31 << 20, dtype=torch.uint8, device="cpu")
