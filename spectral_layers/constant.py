"""Constant tensors: computed when a part is built, from its config alone."""

from __future__ import annotations

import copy

import torch
from torch import Tensor


class Constant:
    """A float64 tensor that a part reads in the dtype and on the device of its inputs.

    Not a buffer, since operations on a model's tensors must not affect it: ``to_empty`` would leave noise, a cast to
    half precision and back would round it, a model built on the meta device would have no values, and checkpoints would
    contain it. Each dtype is rounded directly from float64.
    """

    def __init__(self, values: Tensor) -> None:
        """values: float64 on the CPU, computed under ``torch.device("cpu")``."""
        assert values.dtype == torch.float64
        assert values.device.type == "cpu"
        self.values = values
        self._last: Tensor = values

    def like(self, other: Tensor) -> Tensor:
        """The values in the dtype and on the device of ``other``; the last result is cached."""
        last = self._last
        if last.dtype == other.dtype and last.device == other.device:
            return last
        with torch.inference_mode(False):
            made = self.values.to(other.device, other.dtype)
        if not torch.compiler.is_compiling() and type(made) is Tensor and not made.is_meta:
            self._last = made
        return made

    def __deepcopy__(self, memo: object) -> Constant:
        return copy.copy(self)

    def __getstate__(self) -> dict[str, Tensor]:
        return {"values": self.values, "_last": self.values}
