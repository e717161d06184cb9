"""The inputs of one comparison, and the workloads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from spectral_core.backends.base import Request, transform_dtype
from spectral_layers.context import FilterContext
from spectral_layers.filters.base import Filter
from spectral_layers.filters.resonant import ResonantConfig

Workload = Literal["forward", "forward+backward", "training"]
WORKLOADS: tuple[Workload, ...] = ("forward", "forward+backward", "training")
DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in (torch.float32, torch.bfloat16, torch.float16)}
DTYPES["float64"] = torch.float64

Task = Callable[[], dict[str, Tensor]]
"""Runs a workload once and returns its results by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The shape (B, D, L), dtype and device of a signal."""

    batch: int
    channels: int
    length: int
    dtype: str
    device: str

    def request(self, workload: Workload) -> Request:
        """The request by which a backend says whether it supports this workload."""
        device, dtype = torch.device(self.device).type, transform_dtype(DTYPES[self.dtype])
        length, grad = self.length, workload != "forward"
        return Request("convolution", device, dtype, self.batch, self.channels, length, length, "causal", grad)


@dataclass(frozen=True, slots=True)
class Problem:
    """The inputs all contestants share: signal and cotangent (B, D, L), a resonant filter and its kernel (D, L).

    The filter's parameters are in the precision of the transform, as they are under autocast; its time constants
    reach up to L, so the kernel does not end before the signal does.
    """

    shape: Shape
    u: Tensor
    cotangent: Tensor
    filter: Filter
    kernel: Tensor

    @classmethod
    def make(cls, shape: Shape) -> Problem:
        dtype, size = DTYPES[shape.dtype], (shape.batch, shape.channels, shape.length)
        generator = torch.Generator(shape.device).manual_seed(0)
        u, cotangent = (torch.randn(size, generator=generator, device=shape.device).to(dtype) for _ in range(2))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            config = ResonantConfig(timescales=(2.0, max(2.0, shape.length)))
            module = config.build(FilterContext(channels=shape.channels))
        module = module.to(shape.device, transform_dtype(dtype))
        with torch.no_grad():
            kernel = module.kernel(shape.length).contiguous()
        return cls(shape, u, cotangent, module, kernel)
