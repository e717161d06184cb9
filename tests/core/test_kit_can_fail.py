"""Each check of the kit fails on a backend that breaks its promise: a kit that cannot fail proves nothing.

The faults are those FFT libraries and hand-written kernels have in practice.
"""

from __future__ import annotations

import dataclasses

import pytest
import torch

from spectral_core.backends.base import Spectrum, Support
from spectral_core.backends.torch_fft import TorchFFT
from spectral_core.testing import BACKEND_CHECKS, assert_as_accurate, assert_close, relative_error
from spectral_kernels.tracing import transformed

CHECKS = {check.__name__.removeprefix("check_"): check for check in BACKEND_CHECKS}


class TruncatesTheKernel(TorchFFT):
    """Drops taps beyond L, which a centered or circular kernel still needs."""

    def prepare_kernel(self, kernel, length, mode):
        return super().prepare_kernel(kernel[..., :length], length, mode)


class WrapsAround(TorchFFT):
    """Forgets the zero padding, so the end of the signal reaches its beginning."""

    def prepare_kernel(self, kernel, length, mode):
        return dataclasses.replace(super().prepare_kernel(kernel, length, "circular"), mode=mode)


class ReturnsZeros(TorchFFT):
    """A build that failed, reported nothing, and left its output buffer as it was."""

    def convolution(self, u, kernel, **options):
        return super().convolution(u, kernel, **options) * 0

    def modulation(self, x, gain, phase, n):
        return super().modulation(x, gain, phase, n) * 0

    def rfft(self, x, n):
        return Spectrum(*(0 * part for part in super().rfft(x, n)))


class LeaksTheFuture(TorchFFT):
    """Lets a thousandth of the next token through."""

    def convolution(self, u, kernel, **options):
        y = super().convolution(u, kernel, **options)
        return y + 1e-3 * torch.roll(u, -1, -1).to(y.dtype)


class LeaksThroughGates(TorchFFT):
    """Normalises by the mean of a gate over all time."""

    def convolution(self, u, kernel, *, skip=None, pre_gate=None, post_gate=None):
        y = super().convolution(u, kernel, skip=skip, pre_gate=pre_gate, post_gate=post_gate)
        return y if pre_gate is None else y * (1 + 1e-3 * pre_gate.mean(-1, keepdim=True))


class DropsTheSkipGradient(TorchFFT):
    def convolution(self, u, kernel, *, skip=None, pre_gate=None, post_gate=None):
        skip = None if skip is None else skip.detach()
        return super().convolution(u, kernel, skip=skip, pre_gate=pre_gate, post_gate=post_gate)


class DetachesTheKernel(TorchFFT):
    """Right numbers, and a filter that never learns."""

    def prepare_kernel(self, kernel, length, mode):
        return super().prepare_kernel(kernel.detach(), length, mode)


class HalvesTheKernelGradient(TorchFFT):
    """A hand-written backward that counts the bins of a real transform once."""

    def prepare_kernel(self, kernel, length, mode):
        return super().prepare_kernel((kernel + kernel.detach()) / 2, length, mode)


class DetachesThePhase(TorchFFT):
    def modulation(self, x, gain, phase, n):
        return super().modulation(x, gain, None if phase is None else phase.detach(), n)


class ForgetsToDivide(TorchFFT):
    """Neither transform divides by n."""

    def irfft(self, spectrum, n):
        return super().irfft(spectrum, n) * n


class DividesInTheForward(TorchFFT):
    """norm="ortho" on both sides: the round trip is right, and every spectrum is not."""

    def rfft(self, x, n):
        return Spectrum(*(part / n**0.5 for part in super().rfft(x, n)))

    def irfft(self, spectrum, n):
        return super().irfft(spectrum, n) * n**0.5


class HidesNaN(TorchFFT):
    def convolution(self, u, kernel, **options):
        return torch.nan_to_num(super().convolution(u, kernel, **options))

    def modulation(self, x, gain, phase, n):
        return torch.nan_to_num(super().modulation(x, gain, phase, n))


class ReturnsStrided(TorchFFT):
    def convolution(self, u, kernel, **options):
        return super().convolution(u, kernel, **options).transpose(1, 2).contiguous().transpose(1, 2)

    def modulation(self, x, gain, phase, n):
        return super().modulation(x, gain, phase, n).transpose(1, 2).contiguous().transpose(1, 2)


class KeepsImaginaryEnds(TorchFFT):
    """An inverse by complex transform of the mirrored half: the ends' imaginary parts turn up elsewhere."""

    def irfft(self, spectrum, n):
        plain = super().irfft(spectrum, n)
        # sum_t of (-1)^t im at Nyquist, as a matrix transform whose sine is cos by a slip would add it.
        signs = 1 - 2 * (torch.arange(n, device=plain.device) % 2)
        return plain + (spectrum.imag[..., -1:] * signs / n if n % 2 == 0 else 0)

    def modulation(self, x, gain, phase, n):
        real, imag = self.rfft(x, n)
        if phase is not None:
            real, imag = real * phase.cos() - imag * phase.sin(), real * phase.sin() + imag * phase.cos()
        if gain is not None:
            real, imag = real * gain, imag * gain
        return self.irfft(Spectrum(real, imag), n).to(x.dtype)


class AssumesEvenLength(TorchFFT):
    """irfft without n: one sample is lost of every odd length."""

    def irfft(self, spectrum, n):
        short = torch.fft.irfft(torch.complex(*spectrum)) if n > 1 else super().irfft(spectrum, n)
        return torch.nn.functional.pad(short, (0, n - short.shape[-1]))


class SharesOneRowsKernel(TorchFFT):
    """Applies the first row's kernel to all rows."""

    def prepare_kernel(self, kernel, length, mode):
        return super().prepare_kernel(kernel[:1].expand_as(kernel) if kernel.dim() == 3 else kernel, length, mode)


class ConsumesThePreparedKernel(TorchFFT):
    """Multiplies in place, into the kernel's spectrum."""

    def convolution(self, u, kernel, **options):
        y = super().convolution(u, kernel, **options)
        with torch.no_grad():
            kernel.data.mul_(1.01)
        return y


class TransformsInHalf(TorchFFT):
    """Rounds the spectrum to the input's precision."""

    def convolution(self, u, kernel, *, skip=None, pre_gate=None, post_gate=None):
        x = u if pre_gate is None else u * pre_gate
        spectrum = torch.view_as_real(torch.fft.rfft(x.to(kernel.dtype), n=kernel.points)).to(u.dtype)
        product = torch.view_as_complex(spectrum.to(kernel.dtype)) * kernel.data
        y = torch.fft.irfft(product, n=kernel.points)[..., kernel.offset : kernel.offset + u.shape[-1]]
        y = y if skip is None else y + skip[:, None] * x
        return (y if post_gate is None else y * post_gate).to(u.dtype).contiguous()


class RoundsGates(TorchFFT):
    """Casts the gates to the dtype of the signal."""

    def convolution(self, u, kernel, *, skip=None, pre_gate=None, post_gate=None):
        gates = (None if gate is None else gate.to(u.dtype) for gate in (pre_gate, post_gate))
        return super().convolution(u, kernel, skip=skip, **dict(zip(("pre_gate", "post_gate"), gates, strict=True)))


class MultipliesUnderAutocast(TorchFFT):
    """Sums over taps by a product of matrices, which autocast rounds."""

    def plain_convolution(self, x, kernel):
        points = torch.arange(kernel.points)
        taps = torch.fft.irfft(kernel.data, n=kernel.points)
        matrix = taps[..., (points[:, None] - points) % kernel.points]
        padded = torch.nn.functional.pad(x, (0, kernel.points - x.shape[-1]))
        return (matrix @ padded[..., None])[..., kernel.offset : kernel.offset + x.shape[-1], 0]


class RoundsToTF32(TorchFFT):
    """Float32 in tensor cores at their default: ten bits of the mantissa survive."""

    def convolution(self, u, kernel, **options):
        rounded = u.to(torch.float32).view(torch.int32).bitwise_and(-(1 << 13)).view(torch.float32).to(u.dtype)
        return super().convolution(rounded if u.dtype == torch.float32 else u, kernel, **options)

    def modulation(self, x, gain, phase, n):
        return super().modulation(x.bfloat16().to(x.dtype), gain, phase, n)


class ScalesByTheInput(TorchFFT):
    """Quantises to the range of the input: homogeneous, not additive."""

    def convolution(self, u, kernel, **options):
        return super().convolution(u, kernel, **options) * u.abs().amax()

    def rfft(self, x, n):
        return Spectrum(*(part * x.abs().amax() for part in super().rfft(x, n)))


class DependsOnPosition(TorchFFT):
    def convolution(self, u, kernel, **options):
        y = super().convolution(u, kernel, **options)
        return y * torch.linspace(1, 1.01, y.shape[-1], dtype=y.dtype)


class GatesInPlace(TorchFFT):
    def convolution(self, u, kernel, *, skip=None, pre_gate=None, post_gate=None):
        y = super().convolution(u, kernel, skip=skip, pre_gate=pre_gate, post_gate=post_gate)
        if pre_gate is not None and not u.requires_grad:
            u.mul_(pre_gate)
        return y


class TurnsTheOtherWay(TorchFFT):
    """e^(-i phase)."""

    def modulation(self, x, gain, phase, n):
        return super().modulation(x, gain, None if phase is None else -phase, n)


class _Gradient(torch.autograd.Function):
    """A hand-written backward pass that is right, and a constant to the next one."""

    @staticmethod
    def forward(ctx, u, run):
        ctx.save_for_backward(u)
        ctx.run = run
        return run(u.detach())

    @staticmethod
    def backward(ctx, grad):
        with torch.enable_grad():
            (u,) = (tensor.detach().requires_grad_() for tensor in ctx.saved_tensors)
            return torch.autograd.grad(ctx.run(u), u, grad.detach())[0], None


class ForgetsSecondGradients(TorchFFT):
    """Gives the gradient of the gradient for zero, and says nothing."""

    higher_order = False

    def convolution(self, u, kernel, **options):
        y = super().convolution(u, kernel, **options)
        return _Gradient.apply(u, lambda u: TorchFFT.convolution(self, u, kernel, **options)) + 0 * y


class IsConstantToTorchFunc(TorchFFT):
    """As an operator without rules for the transforms of torch.func, which its author did not know of."""

    def convolution(self, u, kernel, **options):
        return super().convolution(u.detach() if transformed() else u, kernel, **options)


CAUGHT = [
    (ForgetsSecondGradients, "gradients_of_gradients"),
    (IsConstantToTorchFunc, "transforms_of_torch_func"),
    (TruncatesTheKernel, "any_length_and_any_kernel_length"),
    (TruncatesTheKernel, "prepared_kernels"),
    (WrapsAround, "any_length_and_any_kernel_length"),
    (WrapsAround, "causality"),
    (WrapsAround, "convolution_commutes_with_shifts"),
    (ReturnsZeros, "transform_matches_its_definition"),
    (ReturnsZeros, "inverse_undoes_the_transform"),
    (ReturnsZeros, "parseval"),
    (ReturnsZeros, "modulation_matches_its_definition"),
    (ReturnsZeros, "convolution_matches_the_direct_sum"),
    (ReturnsZeros, "float32_is_as_accurate_as_torch"),
    (ReturnsZeros, "causality"),
    (LeaksTheFuture, "causality"),
    (LeaksThroughGates, "causality"),
    (DropsTheSkipGradient, "convolution_gradients"),
    (DetachesTheKernel, "convolution_gradients"),
    (HalvesTheKernelGradient, "convolution_gradients"),
    (DetachesThePhase, "modulation_gradients"),
    (ForgetsToDivide, "inverse_undoes_the_transform"),
    (DividesInTheForward, "transform_matches_its_definition"),
    (DividesInTheForward, "parseval"),
    (HidesNaN, "nan_comes_through_convolution"),
    (HidesNaN, "nan_comes_through_modulation"),
    (ReturnsStrided, "convolution_of_strided_inputs"),
    (ReturnsStrided, "modulation_of_strided_and_empty_inputs"),
    (KeepsImaginaryEnds, "real_symmetry"),
    (AssumesEvenLength, "inverse_undoes_the_transform"),
    (SharesOneRowsKernel, "one_kernel_per_row"),
    (ConsumesThePreparedKernel, "prepared_kernels"),
    (TransformsInHalf, "half_precision_is_transformed_in_float32"),
    (RoundsGates, "gates_keep_their_precision"),
    (MultipliesUnderAutocast, "autocast_rounds_nothing"),
    (RoundsToTF32, "float32_is_as_accurate_as_torch"),
    (RoundsToTF32, "modulation_in_lower_precision"),
    (ScalesByTheInput, "convolution_is_linear"),
    (ScalesByTheInput, "transform_is_linear"),
    (DependsOnPosition, "convolution_commutes_with_shifts"),
    (GatesInPlace, "convolution_leaves_its_inputs_alone"),
    (TurnsTheOtherWay, "phase_ramp_is_a_shift"),
    (TurnsTheOtherWay, "modulation_matches_its_definition"),
]


@pytest.mark.parametrize(
    ("broken", "check"), [pytest.param(*pair, id=f"{pair[0].__name__}-{pair[1]}") for pair in CAUGHT]
)
def test_the_check_catches_the_fault(broken: type[TorchFFT], check: str) -> None:
    with pytest.raises(AssertionError):
        CHECKS[check](broken())


def test_every_check_has_a_fault_it_catches() -> None:
    # The operators themselves answer for an empty batch before a backend is asked.
    assert set(CHECKS) - {name for _, name in CAUGHT} == {"convolution_of_an_empty_batch"}


def test_messages_say_what_was_expected_and_what_to_do() -> None:
    with pytest.raises(AssertionError, match=r"sees the future: new u from token 1 on \(K = 20\) moves earlier"):
        CHECKS["causality"](LeaksTheFuture())
    with pytest.raises(AssertionError, match=r"relative error 1 \(1 is what an all-zero output would give\)"):
        CHECKS["convolution_matches_the_direct_sum"](ReturnsZeros())
    with pytest.raises(AssertionError, match=r"no gradient for kernel|finite differences"):
        CHECKS["convolution_gradients"](DetachesTheKernel())


def test_relative_error_lets_nothing_pass_by_being_small_or_empty() -> None:
    small = torch.full((4,), 1e-12)
    assert relative_error(torch.zeros(4), small) == 1.0
    assert relative_error(small, torch.zeros(4)) == float("inf")
    assert relative_error(torch.zeros(4), torch.zeros(4)) == 0.0
    assert relative_error(torch.full((4,), torch.nan), small) == float("inf")
    assert relative_error(torch.zeros(3), small) == float("inf")
    with pytest.raises(AssertionError, match="expected"):
        assert_close("shapes", torch.zeros(1, 4), torch.zeros(4), 1.0)
    with pytest.raises(AssertionError, match="twice plain"):
        assert_as_accurate("zeros", torch.zeros(4), torch.ones(4), torch.ones(4), 0.1)


def test_support_is_what_the_faults_replace() -> None:
    # The faults above break taps and padding; this pins the right ones.
    assert Support.of(9, 4, "causal") == (0, 4, 8, 0)
    assert Support.of(9, 3, "centered") == (2, 7, 5, 2)  # 3 + 2: what wraps misses the three outputs
