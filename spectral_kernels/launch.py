"""Launches kernels: choice of digits, number of warps and precision."""

from __future__ import annotations

import contextlib
from typing import Any, NoReturn

import torch
from torch import Tensor

from spectral_kernels.factors import ACROSS, ON_CHIP, Digits

PRECISION = {torch.float32: "ieee", torch.float16: "tf32x3", torch.bfloat16: "tf32"}
"""Precision of products by the signal's dtype: their error is below that of rounding the result to it; see README."""
LONGEST = max(ACROSS) * max(ON_CHIP)
"""Complex points of the longest transform."""
_COLUMNS = 4096
"""Points of a tile of columns."""


def points_for(least: int) -> int:
    """Complex points of the transform for a negacyclic circle of at least ``least`` samples: a power of two."""
    points = min(ON_CHIP)
    while 2 * points < least:  # by doubling: a traced length is compared with powers of two only
        points *= 2
    return points


def split(points: int) -> tuple[Digits, Digits] | None:
    """Digits across and within chunks, for the fewest possible chunks; None where a row fits on chip."""
    if points in ON_CHIP:
        return None
    chunks = min(count for count in ACROSS if points // count <= max(ON_CHIP))
    return ACROSS[chunks], ON_CHIP[points // chunks]


def columns(across: Digits, chunk: int) -> int:
    """Columns of a tile: as many of all chunks as fit on chip."""
    return min(chunk, _COLUMNS // across.points)


def options(constants: dict[str, Any]) -> dict[str, int]:
    """How a kernel with those constants is compiled."""
    size = constants["A"] * constants["B"] * constants.get("C", 1) * constants.get("R", 1)
    # One stage: prefetching the next row and its tables would exceed the on-chip memory.
    return {"num_warps": 8 if size >= 2048 else 4, "num_stages": 1}


def refuse_higher_order(*_: Any) -> NoReturn:
    """``second`` of operators without gradients of gradients, which autograd would otherwise treat as zero."""
    raise NotImplementedError(
        "the triton kernels have no gradients of gradients (create_graph=True). Choose fft: torch, which has."
    )


def run(kernel: Any, programs: int, on: Tensor, *arguments: Any, **constants: Any) -> None:
    """Launch that many programs on a tensor's device."""
    with torch.cuda.device(on.device) if on.is_cuda else contextlib.nullcontext():
        kernel[(programs,)](*arguments, **constants, **options(constants))
