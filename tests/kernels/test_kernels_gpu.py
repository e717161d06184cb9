"""The Triton kernels on a GPU: ``pytest -m gpu``. The conformance kit runs there too,
tests/core/test_conformance.py."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from spectral_core import convolve
from spectral_core.testing import relative_error

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def noise(*shape: int, dtype: torch.dtype, seed: int) -> Tensor:
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return drawn.to("cuda", dtype)


def gradients(backend: str, *given: Tensor) -> list[Tensor]:
    leaves = [tensor.clone().requires_grad_() for tensor in given]
    y = convolve(*leaves[:2], skip=leaves[2], pre_gate=leaves[3], post_gate=leaves[4], backend=backend)
    return [y, *torch.autograd.grad(y, leaves, torch.ones_like(y))]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("length", [1000, 4096, 8192, 100_000, 1 << 20])
def test_as_accurate_as_torch(length: int, dtype: torch.dtype) -> None:
    batch = 3 if length < 100_000 else 1
    given = [noise(batch, 2, length, dtype=dtype, seed=1), noise(2, length, dtype=dtype, seed=2) / length**0.5]
    given += [noise(2, dtype=dtype, seed=3), *(noise(batch, 2, length, dtype=dtype, seed=seed) for seed in (4, 5))]
    exact = gradients("torch", *(tensor.double() for tensor in given))
    ours, plain = gradients("triton", *given), gradients("torch", *given)
    allowed = 2 if dtype == torch.float32 else 3
    for mine, other, right in zip(ours, plain, exact, strict=True):
        assert relative_error(mine, right) <= allowed * relative_error(other, right) + 1e-7


def test_the_same_numbers_every_time() -> None:
    given = [noise(7, 5, 3000, dtype=torch.bfloat16, seed=1), noise(5, 3000, dtype=torch.float32, seed=2)]
    given += [noise(5, dtype=torch.float32, seed=3)]
    given += [noise(7, 5, 3000, dtype=torch.bfloat16, seed=seed) for seed in (4, 5)]
    first = gradients("triton", *given)
    for again in (gradients("triton", *given) for _ in range(3)):
        assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))
