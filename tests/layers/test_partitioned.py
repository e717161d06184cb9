"""The partitioned filter against a plain inverse DFT of each chunk."""

from __future__ import annotations

import math

import pytest
import torch

from spectral_layers import FilterContext
from spectral_layers.filters.partitioned import Partitioned, PartitionedConfig


def partitioned(channels: int = 2, chunk: int = 4, chunks: int = 3) -> Partitioned:
    return PartitionedConfig(chunk=chunk, chunks=chunks).build(FilterContext(channels)).double()


@pytest.mark.parametrize("chunk", [2, 3, 8])
def test_each_chunk_is_the_inverse_dft_of_its_weights(chunk: int) -> None:
    made = partitioned(chunk=chunk)
    points, chunks = 2 * chunk, 3
    expected = torch.zeros(2, chunks * chunk, dtype=torch.float64)
    with torch.no_grad():
        share = torch.exp(-2 * made.rate[:, None] * torch.arange(chunks)[:, None])
        scale = (share / share.sum(1, keepdim=True)).sqrt()
        for j in range(chunks):
            for s in range(chunk):
                for f in range(chunk + 1):
                    angle = 2 * math.pi * f * s / points
                    real = made.real[:, j, f] * math.cos(angle)
                    inner = 0 < f < chunk
                    imag = made.imag[:, j, f - 1] * math.sin(angle) if inner else torch.zeros_like(real)
                    expected[:, j * chunk + s] += (1 + inner) / points * scale[:, j, f] * (real - imag)
        for length in (1, chunk, chunk + 1, 3 * chunk, 3 * chunk + 5):
            wanted = torch.nn.functional.pad(expected, (0, 5))[:, :length]
            torch.testing.assert_close(made.kernel(length), wanted, rtol=0, atol=1e-12)


def test_weights_reach_their_own_chunk_and_no_other() -> None:
    made = partitioned(chunk=8, chunks=4)
    before = made.kernel(32).detach()
    with torch.no_grad():
        made.real[:, 2] += torch.randn_like(made.real[:, 2])
        made.imag[:, 2] += torch.randn_like(made.imag[:, 2])
        moved = (made.kernel(32) - before).abs()
    assert (moved[:, 16:24] > 0).all()
    assert not moved[:, :16].any()
    assert not moved[:, 24:].any()


def test_frequencies_fade_over_the_chunks_at_their_own_rates() -> None:
    # The same weights in each chunk, low frequencies for ever, high ones for a chunk: later chunks are low-passed.
    made = partitioned(channels=1, chunk=32, chunks=4)
    with torch.no_grad():
        made.real.copy_(made.real[:, :1].expand_as(made.real))
        made.imag.copy_(made.imag[:, :1].expand_as(made.imag))
        made.rate[:, :16], made.rate[:, 16:] = 0.0, 3.0
        chunks = torch.fft.rfft(made.kernel(128).unflatten(-1, (4, 32)) * torch.hann_window(32)).abs().square()
    low, high = chunks[0, :, :7].sum(-1), chunks[0, :, 10:].sum(-1)
    torch.testing.assert_close(low[1:], low[0].expand(3), rtol=0.1, atol=0)
    assert high[1] < 0.01 * high[0]
    assert (high[2:] < 1e-4 * high[0]).all()


@pytest.mark.parametrize(("chunk", "chunks"), [(16, 40), (256, 3)])
def test_kernels_begin_with_about_a_hundredth_of_unit_energy(chunk: int, chunks: int) -> None:
    made = PartitionedConfig(chunk=chunk, chunks=chunks).build(FilterContext(400))
    assert 0.006 < made.kernel(made.support).square().sum(-1).mean().item() < 0.012


def test_gradcheck_of_the_partitioned_kernel() -> None:
    made = partitioned()
    names = [name for name, _ in made.named_parameters()]
    made.forward = made.kernel  # functional_call goes through forward

    def kernel(*values: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(made, dict(zip(names, values, strict=True)), (10,))

    assert torch.autograd.gradcheck(kernel, tuple(made.parameters()))
