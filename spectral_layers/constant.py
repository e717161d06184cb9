"""Constant tensors, computed from a part's config alone when they are first read."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


class Constant:
    """A float64 tensor that a part reads in the dtype and on the device of its inputs.

    Not a buffer: ``to_empty`` would fill it with noise, a cast to half precision and back would round it, a model built
    on the meta device would have no values, and checkpoints would contain it. Each dtype is rounded from float64.
    """

    def __init__(self, make: Callable[[], Tensor]) -> None:
        """make: computes the values, in float64 on the CPU; called on first use."""
        self._make = make
        self._values: Tensor | None = None
        self._last: Tensor | None = None

    @property
    def values(self) -> Tensor:
        """The values in float64, on the CPU."""
        if self._values is None:
            with torch.inference_mode(False), torch.device("cpu"):
                self._values = self._make()
            assert self._values.dtype == torch.float64
        return self._values

    def like(self, other: Tensor) -> Tensor:
        """The values in the dtype and on the device of ``other``; the last result is cached."""
        last = self._last
        if last is not None and last.dtype == other.dtype and last.device == other.device:
            return last
        with torch.inference_mode(False):
            values = self.values.to(other.device, other.dtype)
        if not torch.compiler.is_compiling() and type(values) is Tensor and not values.is_meta:
            self._last = values
        return values

    def __getstate__(self) -> dict[str, object]:
        return {"_make": self._make, "_values": None, "_last": None}
