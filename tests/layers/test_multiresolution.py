"""The multiresolution filter against its octaves, multiplied out one by one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from spectral_layers import FilterContext
from spectral_layers.filters.multiresolution import Multiresolution, MultiresolutionConfig


def multiresolution(channels: int = 2, **options: int) -> Multiresolution:
    made = MultiresolutionConfig(**options).build(FilterContext(channels)).double()
    with torch.no_grad():
        made.smoothing.add_(0.5 * torch.randn_like(made.smoothing))
    return made


def spaced(taps: np.ndarray, gap: int) -> np.ndarray:
    out = np.zeros((len(taps) - 1) * gap + 1)
    out[::gap] = taps
    return out


def octave(made: Multiresolution, channel: int, j: int) -> np.ndarray:
    """s_j W_j(z^(2^j)) H(z) H(z^2) ... H(z^(2^(j-1))), multiplied out."""
    weights = np.exp(-2 * made.decay.detach().numpy()[channel] * np.arange(made.octaves))
    lowpass = np.exp(made.smoothing.detach().numpy()[channel])
    lowpass *= np.sqrt(2) / lowpass.sum()
    out = spaced(made.coefficient.detach().numpy()[channel, j], 2**j) * np.sqrt(weights[j] / weights.sum())
    for i in range(j):
        out = np.convolve(out, spaced(lowpass, 2**i))
    return out


@pytest.mark.parametrize("taps", [2, 3, 4, 5])
@pytest.mark.parametrize("octaves", [2, 3, 5])
def test_the_kernel_is_the_sum_of_its_octaves(taps: int, octaves: int) -> None:
    made = multiresolution(taps=taps, octaves=octaves)
    expected = np.zeros((2, made.support))
    for channel in range(2):
        for j in range(octaves):
            part = octave(made, channel, j)
            expected[channel, : len(part)] += part
    assert (np.abs(expected[:, -1]) > 1e-12).all(), "the support is exact: its last tap is heard"
    for length in (1, 2, 7, made.support, made.support + 20):
        kernel = made.kernel(length).detach().numpy()
        padded = np.pad(expected, ((0, 0), (0, 20)))[:, :length]
        np.testing.assert_allclose(kernel, padded, rtol=0, atol=1e-12)


def test_resolution_halves_with_every_octave() -> None:
    # Of octave j, all but a hundredth of the energy is below 2^-(j+1) cycles a token, half its own sampling rate or so.
    made = MultiresolutionConfig(octaves=7).build(FilterContext(32)).double()
    frequency = torch.arange(2049) / 4096
    with torch.no_grad():
        coefficient = made.coefficient.clone()
        for j in range(1, 7):
            made.coefficient.zero_()
            made.coefficient[:, j] = coefficient[:, j]
            energy = torch.fft.rfft(made.kernel(512), 4096).abs().square().sum(0)
            assert energy[frequency > 2.0**-j].sum() < 0.01 * energy.sum()
            assert energy[frequency > 2.0 ** -(j + 2)].sum() > 0.1 * energy.sum()


@pytest.mark.parametrize("octaves", [2, 4, 13])
def test_kernels_keep_their_energy_over_any_number_of_octaves(octaves: int) -> None:
    made = MultiresolutionConfig(octaves=octaves).build(FilterContext(100))
    energy = made.kernel(made.support).detach().square().sum(-1).mean().item()
    assert 0.5 < energy < 1.2


def test_gradcheck_of_the_multiresolution_kernel() -> None:
    made = multiresolution(taps=3, octaves=3)
    names = [name for name, _ in made.named_parameters()]
    made.forward = made.kernel  # functional_call goes through forward

    def kernel(*values: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(made, dict(zip(names, values, strict=True)), (15,))

    assert torch.autograd.gradcheck(kernel, tuple(made.parameters()))


def test_a_long_kernel_costs_its_taps_not_its_octaves() -> None:
    # Work and memory halve with every octave: what is kept for the backward pass is a few times the kernel.
    made = MultiresolutionConfig(octaves=14).build(FilterContext(8))
    kept = 0

    def count(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal kept
        kept += tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        kernel = made.kernel(1 << 14)
    assert kept < 4 * kernel.numel()
