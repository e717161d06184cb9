"""Checks of a backend's transforms, and of the modulation between them."""

from __future__ import annotations

import itertools
from functools import partial

import torch

from spectral_core.axes import describe
from spectral_core.backends.base import FFTBackend, Spectrum
from spectral_core.modulation import modulate
from spectral_core.testing.gradients import assert_gradients
from spectral_core.testing.inputs import Inputs
from spectral_core.testing.numerics import assert_as_accurate, assert_close
from spectral_core.testing.oracle import oracle_irfft, oracle_modulate, oracle_rfft
from spectral_kernels.modulation.reference import bin_weights

_LENGTHS = (1, 2, 3, 4, 8, 13, 30, 31, 64)


def check_transform_matches_its_definition(backend: FFTBackend) -> None:
    """The transform is the unnormalised sum, over the last axis, cropped or zero-padded to n points."""
    draw = Inputs(backend)
    for length, n in [*zip(_LENGTHS, _LENGTHS, strict=True), (20, 27), (20, 13)]:
        x = draw.normal(2, 3, length)
        found, wanted = backend.rfft(x, n), oracle_rfft(x, n)
        pair = torch.stack([found.real, found.imag]), torch.stack([wanted.real, wanted.imag])
        assert_close(f"rfft of {length} samples at n = {n}", *pair, draw.tolerance)


def check_inverse_undoes_the_transform(backend: FFTBackend) -> None:
    """irfft(rfft(x, n), n) == x for odd, prime, even and single n: only the inverse divides by n."""
    draw = Inputs(backend)
    for n in _LENGTHS:
        x = draw.normal(2, 3, n)
        assert_close(f"irfft of rfft at n = {n}", backend.irfft(backend.rfft(x, n), n), x, draw.tolerance)


def check_parseval(backend: FFTBackend) -> None:
    """The energy of a signal is that of its spectrum over n, in which bins between DC and Nyquist count twice."""
    draw = Inputs(backend)
    for n in _LENGTHS:
        x = draw.normal(2, 3, n)
        spectrum = backend.rfft(x, n)
        power = (spectrum.real.square() + spectrum.imag.square()).cpu().double()
        energy = (power * bin_weights(n)).sum(-1) / n
        assert_close(f"energy of the spectrum at n = {n}", energy, x.cpu().double().square().sum(-1), draw.tolerance)


def check_real_symmetry(backend: FFTBackend) -> None:
    """Imaginary parts at DC and Nyquist do not contribute, in irfft and in modulation by a phase."""
    draw = Inputs(backend)
    for n in (1, 2, 7, 12):
        bins = n // 2 + 1
        spectrum = Spectrum(draw.normal(2, 3, bins), draw.normal(2, 3, bins))
        what = f"irfft at n = {n} of a spectrum with imaginary parts at DC and Nyquist (zero them: libraries differ)"
        assert_close(what, backend.irfft(spectrum, n), oracle_irfft(spectrum, n), draw.tolerance)
        x, phase = draw.normal(2, 3, n), draw.normal(2, 3, bins)
        what = f"modulation at n = {n} with a phase at DC and Nyquist"
        assert_close(what, modulate(x, phase=phase, backend=backend), oracle_modulate(x, phase=phase), draw.tolerance)


def check_transform_is_linear(backend: FFTBackend) -> None:
    draw = Inputs(backend)
    x, y = draw.normal(2, 3, 21), draw.normal(2, 3, 21)
    whole, first, second = backend.rfft(2 * x - 3 * y, 21), backend.rfft(x, 21), backend.rfft(y, 21)
    for part in ("real", "imag"):
        expected = 2 * getattr(first, part) - 3 * getattr(second, part)
        assert_close(f"{part} part: rfft is linear", getattr(whole, part), expected, 10 * draw.tolerance)


def check_modulation_matches_its_definition(backend: FFTBackend) -> None:
    """Gain, phase, both or neither; n below, at and above L; fields per sample or broadcast."""
    draw = Inputs(backend)
    for n, shape in itertools.product((9, 16, 23), ((2, 3), (1, 3), (2, 1), ())):
        x = draw.normal(2, 3, 16)
        gain, phase = draw.normal(*shape, n // 2 + 1), draw.normal(*shape, n // 2 + 1)
        for g, p in ((gain, phase), (gain, None), (None, phase), (None, None)):
            y = modulate(x, g, p, n=n, backend=backend)
            fields = " and ".join(name for name, field in (("gain", g), ("phase", p)) if field is not None)
            what = f"modulation of 16 samples at n = {n} by {fields or 'nothing'}, fields {tuple(gain.shape)}"
            assert_close(what, y, oracle_modulate(x, g, p, n), draw.tolerance)
    for length in (1, 2, 13, 31):
        x, gain = draw.normal(2, 3, length), draw.normal(2, 3, length // 2 + 1)
        y = modulate(x, gain, backend=backend)
        assert_close(f"modulation of {length} samples", y, oracle_modulate(x, gain), draw.tolerance)


def check_phase_ramp_is_a_shift(backend: FFTBackend) -> None:
    """A phase of -2 pi f s / n at bin f rolls the signal by s tokens."""
    draw = Inputs(backend)
    for n, steps in ((16, 3), (15, 4)):
        x = draw.normal(2, 3, n)
        ramp = -2 * torch.pi * steps / n * torch.arange(n // 2 + 1, dtype=draw.dtype, device=draw.device)
        shifted = modulate(x, phase=ramp, backend=backend)
        assert_close(f"phase ramp at n = {n}", shifted, torch.roll(x, steps, -1), 10 * draw.tolerance)


def check_modulation_in_lower_precision(backend: FFTBackend) -> None:
    """float32 has at most twice torch.fft's error; half precision is transformed in float32."""
    draw = Inputs(backend)
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        x, gain, phase = (draw.normal(2, 3, size, dtype=dtype) for size in (200, 101, 101))
        y = modulate(x, gain, phase, backend=backend)
        if y.dtype != dtype:
            raise AssertionError(f"the output must have x's dtype {dtype}; got {describe(y)}.")
        field = (gain.float() * torch.exp(1j * phase.float())).cpu()
        spectrum = torch.fft.rfft(x.float().cpu()) * field
        plain = torch.fft.irfft(spectrum, n=200).to(dtype)
        assert_as_accurate(f"modulation in {dtype}", y, plain, oracle_modulate(x, gain, phase), 2.5e-7)


def check_modulation_gradients(backend: FFTBackend) -> None:
    """Gradients for x, gain and phase agree with finite differences, and each alone with the definition.

    The phase at DC and Nyquist has a gradient too: it shrinks the real parts of those bins.
    """
    draw = Inputs(backend)
    for length, n in ((6, 6), (5, 5), (5, 8)):
        bins = n // 2 + 1
        tensors = {"x": draw.normal(2, 3, length), "gain": draw.normal(3, bins), "phase": draw.normal(2, 3, bins)}
        run, exact = partial(modulate, n=n, backend=backend), partial(oracle_modulate, n=n)
        assert_gradients(f"modulation at n = {n}", run, exact, tensors, draw.tolerance)


def check_modulation_of_strided_and_empty_inputs(backend: FFTBackend) -> None:
    """Transposed (B, L, D) tensors are accepted, outputs are contiguous, and an empty batch stays empty."""
    draw = Inputs(backend)
    gain, phase = (draw.normal(2, 10, 3).transpose(1, 2) for _ in range(2))
    # In the last two, rows are not in memory order, which some libraries keep in their output.
    layouts = (
        draw.normal(2, 18, 3).transpose(1, 2),
        draw.normal(3, 2, 18).transpose(0, 1),
        draw.normal(18, 3, 2).permute(2, 1, 0),
    )
    for x, (g, p) in itertools.product(layouts, ((gain, phase), (None, None))):
        y = modulate(x, g, p, backend=backend)
        assert_close("modulation of strided inputs", y, oracle_modulate(x, g, p), draw.tolerance)
        if not y.is_contiguous():
            raise AssertionError(f"modulation: the output {describe(y)} of a strided input must be contiguous.")
    empty = modulate(draw.normal(0, 3, 18), draw.normal(3, 10), backend=backend)
    if empty.shape != (0, 3, 18):
        raise AssertionError(f"an empty batch (0, 3, 18) must come back as (0, 3, 18); got {tuple(empty.shape)}.")


def check_nan_comes_through_modulation(backend: FFTBackend) -> None:
    """A NaN in the signal or in either field shows in the output of its row and channel."""
    draw = Inputs(backend)
    for name in ("x", "gain", "phase"):
        x, gain, phase = draw.normal(2, 3, 16), draw.normal(2, 3, 9), draw.normal(2, 3, 9)
        {"x": x, "gain": gain, "phase": phase}[name][0, 1, 4] = torch.nan
        if not bool(modulate(x, gain, phase, backend=backend)[0, 1].isnan().all()):
            raise AssertionError(f"modulation hides a NaN in {name}: outputs that depend on it are finite.")
