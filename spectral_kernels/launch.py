"""How kernels are launched: which digits, how many warps, in which precision."""

from __future__ import annotations

import contextlib
from typing import Any, NoReturn

import torch
from torch import Tensor

from spectral_kernels.factors import ACROSS, ON_CHIP, Digits

PRECISION = {torch.float32: "ieee", torch.float16: "tf32x3", torch.bfloat16: "tf32"}
"""Products by the dtype of the signal, each with an error that rounding the result to that dtype hides; README."""
LONGEST = max(ACROSS) * max(ON_CHIP)
"""Complex points of the longest transform."""
_COLUMNS = 4096
"""Points of a tile of columns."""


def points_for(least: int) -> int:
    """Complex points of the transform for a negacyclic circle of at least so many samples: a power of two."""
    points = min(ON_CHIP)
    while 2 * points < least:  # by doubling: a traced length is compared with powers of two only
        points *= 2
    return points


def split(points: int) -> tuple[Digits, Digits] | None:
    """Digits across chunks and within, as few and as long chunks as there are; None where a row fits on chip."""
    if points in ON_CHIP:
        return None
    chunks = min(count for count in ACROSS if points // count <= max(ON_CHIP))
    return ACROSS[chunks], ON_CHIP[points // chunks]


def columns(across: Digits, chunk: int) -> int:
    """Columns of a tile: as many as fit on chip with all chunks."""
    return min(chunk, _COLUMNS // across.points)


def options(constants: dict[str, Any]) -> dict[str, int]:
    """How a kernel with those constants is compiled."""
    size = constants["A"] * constants["B"] * constants.get("C", 1) * constants.get("R", 1)
    # One stage: loops over rows must not fetch the next row ahead, tables and all, into memory that is not there.
    return {"num_warps": 8 if size >= 2048 else 4, "num_stages": 1}


def refuse_higher_order(*_: Any) -> NoReturn:
    """The ``second`` of operators without gradients of gradients: autograd would take their gradients for constants."""
    raise NotImplementedError(
        "the triton kernels have no gradients of gradients (create_graph=True). Choose fft: torch, which has."
    )


def run(kernel: Any, programs: int, on: Tensor, *arguments: Any, **constants: Any) -> None:
    """Launch that many programs on a tensor's device."""
    with torch.cuda.device(on.device) if on.is_cuda else contextlib.nullcontext():
        kernel[(programs,)](*arguments, **constants, **options(constants))
