"""Seeded inputs for the checks, on a device that the backend supports."""

from __future__ import annotations

import torch
from torch import Tensor

from spectral_core.backends.base import FFTBackend, Request

_TOLERANCE = {torch.float64: 1e-12, torch.float32: 5e-6}


class Inputs:
    """Random tensors on a device the backend supports, in the most precise dtype it takes.

    device, dtype: those of the checks. tolerance: the allowed relative error.
    """

    def __init__(self, backend: FFTBackend, seed: int = 0) -> None:
        self.device, self.dtype = _home(backend)
        self.tolerance = _TOLERANCE[self.dtype]
        self._generator = torch.Generator().manual_seed(seed)

    def normal(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """Standard normal values: of size 1, so that a relative error is meaningful."""
        drawn = torch.randn(shape, generator=self._generator, dtype=torch.float64)
        return drawn.to(self.device, dtype or self.dtype)


def _home(backend: FFTBackend) -> tuple[str, torch.dtype]:
    devices = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])
    refusals = []
    for dtype in _TOLERANCE:
        for device in devices:
            request = Request("convolution", device, dtype, 2, 3, 16, 16, "causal", True)
            reasons = backend.unsupported_reasons(request)
            if not reasons:
                return device, dtype
            refusals.append(f"{device} {str(dtype).removeprefix('torch.')}: {'; '.join(reasons)}")
    raise AssertionError(
        f"backend {backend.name!r} refuses a causal convolution of (2, 3, 16) on every device here, so nothing can be "
        f"checked. Run the kit where it works. Its reasons: {' | '.join(refusals)}."
    )
