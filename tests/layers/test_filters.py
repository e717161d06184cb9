"""Filters against their formulas: what the conformance kit, which only compares a filter with itself, cannot see."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from spectral_layers import FILTERS, FilterContext
from spectral_layers.filters.implicit import ImplicitConfig
from spectral_layers.filters.resonant import Resonant, ResonantConfig
from spectral_layers.filters.spectrum import Spectrum, SpectrumConfig
from spectral_layers.mixers.gated_convolution import GatedConvolution, GatedConvolutionConfig
from spectral_layers.testing import MixerCase


def resonant(channels: int = 3, modes: int = 4) -> Resonant:
    torch.manual_seed(0)
    return ResonantConfig(modes=modes, timescales=(2.0, 30.0)).build(FilterContext(channels)).double()


def direct(made: Resonant, length: int) -> torch.Tensor:
    """Re sum_m c sqrt(1 - |lambda|^2) lambda^t, term by term in complex numbers."""
    pole = torch.exp(torch.complex(-made.log_decay.exp(), made.frequency))
    weight = torch.view_as_complex(made.coefficient) * (1 - pole.abs() ** 2).sqrt()
    return torch.stack([(weight * pole**t).sum(-1).real for t in range(length)], -1)


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 16, 17, 50])
def test_the_resonant_kernel_is_its_sum_of_modes(length: int) -> None:
    made = resonant()
    torch.testing.assert_close(made.kernel(length), direct(made, length), rtol=1e-12, atol=1e-12)


def test_gradcheck_of_the_resonant_kernel() -> None:
    made = resonant(2, 2)
    names = [name for name, _ in made.named_parameters()]

    def kernel(*values: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(made, dict(zip(names, values, strict=True)), (7,))

    made.forward = made.kernel  # functional_call goes through forward
    values = tuple(parameter.detach().clone().requires_grad_() for parameter in made.parameters())
    assert torch.autograd.gradcheck(kernel, values)


def test_gradcheck_of_the_resonant_recurrence() -> None:
    # Training across chunks: carry and absorb are differentiated in the memory, the input and the parameters.
    made = resonant(2, 2)
    u = torch.randn(1, 2, 5, dtype=torch.float64, requires_grad=True)
    memory = torch.randn(1, 2, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda u, memory: made.carry(made.absorb(memory, u, None), 3), (u, memory))
    assert torch.autograd.gradcheck(lambda u, memory: made.step(memory, u[..., 0]), (u, memory))


def test_each_mode_has_unit_energy() -> None:
    # The kernel's size must not follow the time constants: long memories would drown short ones.
    for tau in (2.0, 50.0, 1000.0):
        made = ResonantConfig(modes=1, timescales=(tau, tau)).build(FilterContext(1)).double()
        with torch.no_grad():
            made.frequency.fill_(0.0)
            made.coefficient.copy_(torch.tensor([[[1.0, 0.0]]]))
            assert made.kernel(int(40 * tau)).square().sum().item() == pytest.approx(1.0, rel=1e-6)


def test_the_spectrum_filter_is_the_response_it_is_given() -> None:
    # Zero phase and flat magnitude: an impulse; a linear phase: a delay.
    made = Spectrum(channels=1, size=16, fft="torch").double()
    with torch.no_grad():
        made.log_decay.fill_(-40.0)  # no window
        made.phase.copy_(-3 * torch.pi * torch.arange(17, dtype=torch.float64)[None] / 16)
        expected = torch.zeros(1, 16, dtype=torch.float64)
        expected[0, 3] = 1.0
        torch.testing.assert_close(made.kernel(16), expected, rtol=0, atol=1e-9)


def test_an_implicit_kernel_fades_at_the_rate_of_its_channel() -> None:
    torch.manual_seed(0)
    made = ImplicitConfig(timescale=64.0).build(FilterContext(4)).double()
    with torch.no_grad():
        kernel = made.kernel(1000).abs()
    bound = made.output.weight.abs().sum(-1, keepdim=True) * torch.exp(
        -made.log_decay.exp()[:, None] * torch.arange(1000, dtype=torch.float64)
    )
    assert (kernel <= bound + 1e-12).all()


def test_a_limited_filter_is_never_asked_for_more_than_its_limit() -> None:
    case = MixerCase(GatedConvolutionConfig(filter=SpectrumConfig(size=37)))
    asked = []

    class Watched(Spectrum):
        def kernel(self, length):
            asked.append(length)
            return super().kernel(length)

    mixer = case.build()
    assert isinstance(mixer, GatedConvolution)
    torch.manual_seed(0)
    mixer.filter = Watched(channels=case.hidden_dim, size=37).double()
    mixer.filter.support = None
    x = torch.randn(1, 37, case.hidden_dim, dtype=torch.float64)
    with torch.no_grad():
        y = mixer(x).y
        state = mixer(x[:, :3], return_state=True).state
        for chunk in x[:, 3:].split([30, 1, 1, 2], 1):
            output = mixer(chunk, state=state, return_state=True)
            state = output.state
    torch.testing.assert_close(output.y, y[:, -2:])
    assert max(asked) == 37


def test_kernels_in_half_precision_are_finite() -> None:
    # There is no complex bfloat16; a model cast as a whole must still have its kernels.
    for name in FILTERS.names():
        made = FILTERS.get(name).load().model_validate({}).build(FilterContext(3, max_seq_len=32))
        kernel = nn.Module.to(made, torch.bfloat16).kernel(32)
        assert kernel.dtype == torch.bfloat16
        assert kernel.isfinite().all()
