"""Work divided into cache-sized blocks and shared out among threads, and buffers to do it in.

Threads take whole blocks: ducc0 and numpy release the GIL. Threads inside of ducc0 would meet at the end of each
transform of each block; where another process holds a core, that waiting costs several times the transform.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch

Array = npt.NDArray[Any]
Unit = TypeVar("Unit")

BLOCK_BYTES = 2 << 20
LANES = 4
"""Rows that ducc0 transforms at once in the vector registers of any x86-64 (float32): fewer take as long."""
_LINE = 64


@dataclass(frozen=True, slots=True)
class Blocks:
    """How large a block is and how many threads work: the backend's options.

    block_bytes: of a block's padded signal and spectrum, for each thread. None: BLOCK_BYTES, or ``LANES`` rows when
    these are more. threads: None for torch's number.
    """

    block_bytes: int | None = None
    threads: int | None = None

    def lines(self, points: int, dtype: torch.dtype) -> int:
        """Transforms of that many points in a block."""
        size = 2 * points * dtype.itemsize
        if self.block_bytes is None:
            return max(LANES, BLOCK_BYTES // size // LANES * LANES)
        return max(1, self.block_bytes // size)

    def count_threads(self) -> int:
        return torch.get_num_threads() if self.threads is None else self.threads

    def run(self, units: Iterable[Unit], prepare: Callable[[], Callable[[Unit], None]]) -> None:
        """Every unit to one thread or another; ``prepare`` gives each thread its own worker with its own buffers."""
        waiting = deque(units)

        def share() -> None:
            work = prepare()
            with np.errstate(all="ignore"):  # infinities and NaN come through without a word, as in torch
                while True:
                    try:
                        unit = waiting.popleft()
                    except IndexError:
                        return
                    work(unit)

        helpers = min(self.count_threads(), len(waiting)) - 1
        if helpers < 1:
            share()
            return
        # Threads that live no longer than the call: nothing to copy with a model, nothing lost in a forked process.
        with ThreadPoolExecutor(helpers) as pool:
            shares = [pool.submit(share) for _ in range(helpers)]
            share()
            for each in shares:
                each.result()


def zeros(shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
    """Zeros whose rows are a cache line further apart than they are long.

    Rows a power of two apart fall on the same few sets of a cache, and 16 of them take ducc0 twice as long.
    """
    extra = _LINE // np.dtype(dtype).itemsize
    whole: Array = np.zeros((*shape[:-1], shape[-1] + extra), dtype)
    return whole[..., : shape[-1]]


def view(x: torch.Tensor) -> Array:
    """The tensor's own memory, as an array."""
    array: Array = x.detach().numpy()
    return array


def slices(total: int, step: int) -> list[slice]:
    return [slice(start, min(total, start + step)) for start in range(0, total, step)]
