"""Checks of a backend's convolution, through the public operator."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from spectral_core.axes import describe
from spectral_core.backends.base import MODES, FFTBackend, Mode
from spectral_core.convolution import convolve, prepare_kernel
from spectral_core.testing.gradients import assert_gradients
from spectral_core.testing.inputs import Inputs
from spectral_core.testing.numerics import assert_as_accurate, assert_close, relative_error
from spectral_core.testing.oracle import oracle_convolve, plain_convolve

# A few units in the last place of float32: for another order of summation, not for a less accurate algorithm.
_FLOAT32_FLOOR = 2.5e-7


def check_convolution_matches_the_direct_sum(backend: FFTBackend) -> None:
    """Every mode, with each combination of skip and gates, equals the float64 sum that defines it."""
    draw = Inputs(backend)
    u, kernel = draw.normal(2, 3, 21), draw.normal(3, 9)
    every = {"skip": draw.normal(3), "pre_gate": draw.normal(2, 3, 21), "post_gate": draw.normal(2, 3, 21)}
    for mode, present in itertools.product(MODES, itertools.product((False, True), repeat=3)):
        chosen = dict(itertools.compress(every.items(), present))
        y = convolve(u, kernel, mode=mode, backend=backend, **chosen)
        what = f"{mode} convolution with {', '.join(chosen) or 'neither skip nor gates'}"
        assert_close(what, y, oracle_convolve(u, kernel, mode=mode, **chosen), draw.tolerance)


def check_any_length_and_any_kernel_length(backend: FFTBackend) -> None:
    """Odd, prime, even and single lengths against kernels shorter, equal, longer and much longer: K = 1 to K > 2L.

    A transform of a fixed 2L points would truncate or wrap long kernels.
    """
    draw = Inputs(backend)
    for length in (1, 2, 3, 8, 13, 31, 45):
        for taps in sorted({1, max(1, length // 2), length, length + 1, 2 * length + 3}):
            u, kernel = draw.normal(1, 3, length), draw.normal(3, taps)
            for mode in MODES:
                y = convolve(u, kernel, mode=mode, backend=backend)
                what = f"{mode} convolution, L = {length}, K = {taps}"
                assert_close(what, y, oracle_convolve(u, kernel, mode=mode), draw.tolerance)


def check_one_kernel_per_row(backend: FFTBackend) -> None:
    """A kernel (B, D, K) gives each row of the batch its own, with gates and skip as usual."""
    draw = Inputs(backend)
    u, kernel, skip, gate = draw.normal(3, 5, 17), draw.normal(3, 5, 23), draw.normal(5), draw.normal(3, 5, 17)
    for mode in MODES:
        y = convolve(u, kernel, mode=mode, skip=skip, pre_gate=gate, backend=backend)
        expected = oracle_convolve(u, kernel, mode=mode, skip=skip, pre_gate=gate)
        assert_close(f"{mode} convolution with a kernel per row (B, D, K)", y, expected, draw.tolerance)


def check_float32_is_as_accurate_as_torch(backend: FFTBackend) -> None:
    """In float32, the error against float64 is at most twice that of plain torch.fft."""
    draw = Inputs(backend)
    for length, taps in ((97, 97), (512, 300)):
        u, kernel = draw.normal(2, 3, length, dtype=torch.float32), draw.normal(3, taps, dtype=torch.float32)
        for mode in MODES:
            y = convolve(u, kernel, mode=mode, backend=backend)
            _require_dtype(y, torch.float32)
            exact, plain = oracle_convolve(u, kernel, mode=mode), plain_convolve(u, kernel, mode)
            assert_as_accurate(f"{mode} convolution in float32, L = {length}", y, plain, exact, _FLOAT32_FLOOR)


def check_half_precision_is_transformed_in_float32(backend: FFTBackend) -> None:
    """bfloat16 and float16 are as accurate as a rounded result, and large sums in the spectrum do not overflow."""
    draw = Inputs(backend)
    for dtype in (torch.bfloat16, torch.float16):
        u, gate, skip = (draw.normal(*shape, dtype=dtype) for shape in ((2, 3, 200), (2, 3, 200), (3,)))
        kernel = draw.normal(3, 200, dtype=dtype)
        y = convolve(u, kernel, backend=backend)
        _require_dtype(y, dtype)
        plain = plain_convolve(u, kernel, "causal")
        assert_as_accurate(f"convolution in {dtype}", y, plain, oracle_convolve(u, kernel), 0.0)
        gated = convolve(u, kernel, skip=skip, pre_gate=gate, backend=backend)
        _require_dtype(gated, dtype)
        exact = oracle_convolve(u, kernel, skip=skip, pre_gate=gate)
        assert_as_accurate(f"convolution with gate and skip in {dtype}", gated, exact.to(dtype), exact, 0.0)
    # The sum over this signal, its bin at frequency 0, is 1.3e5: beyond float16's largest number.
    loud = torch.full((1, 1, 2048), 64.0, dtype=torch.float16, device=draw.device)
    average = torch.full((1, 64), 1 / 64, dtype=torch.float16, device=draw.device)
    y = convolve(loud, average, backend=backend)
    assert_close("moving average of a loud float16 signal", y, oracle_convolve(loud, average), 1e-3)


def check_gates_keep_their_precision(backend: FFTBackend) -> None:
    """Float32 gates of a float16 signal are multiplied, and get their gradients, in float32."""
    draw = Inputs(backend)
    u, kernel, cotangent = (draw.normal(*shape, dtype=torch.float16) for shape in ((2, 3, 40), (3, 40), (2, 3, 40)))
    pre_gate, post_gate = gates = [draw.normal(2, 3, 40, dtype=torch.float32).requires_grad_() for _ in range(2)]
    found, wanted = (
        torch.autograd.grad(y, gates, cotangent.to(y.dtype))
        for y in (
            convolve(u, kernel, pre_gate=pre_gate, post_gate=post_gate, backend=backend),
            oracle_convolve(u, kernel, pre_gate=pre_gate, post_gate=post_gate),
        )
    )
    for name, ours, exact in zip(("pre_gate", "post_gate"), found, wanted, strict=True):
        _require_dtype(ours, torch.float32)
        assert_close(f"gradient for a float32 {name} of a float16 signal", ours, exact, 2e-5)


def check_autocast_rounds_nothing(backend: FFTBackend) -> None:
    """Autocast does not change a float32 convolution or its gradients.

    Backends with matrix products or library convolutions must disable it around them.
    """
    draw = Inputs(backend)
    u, cotangent = (draw.normal(2, 3, 40, dtype=torch.float32) for _ in range(2))
    for taps in (9, 40):
        kernel = draw.normal(3, taps, dtype=torch.float32)
        found = []
        for enabled in (False, True):
            leaves = [u.clone().requires_grad_(), kernel.clone().requires_grad_()]
            with torch.autocast(draw.device, torch.bfloat16, enabled=enabled):
                y = convolve(*leaves, backend=backend)
            found.append((y.detach(), *torch.autograd.grad(y, leaves, cotangent)))
            _require_dtype(y, torch.float32)
        for what, under, without in zip(
            ("output", "gradient of u", "gradient of the kernel"), *found[::-1], strict=True
        ):
            assert_close(f"{what} under autocast, K = {taps}", under, without, 1e-6)


def check_convolution_is_linear(backend: FFTBackend) -> None:
    """Linear in the signal and in the kernel, skip included."""
    draw = Inputs(backend)
    u, v, skip = draw.normal(2, 3, 19), draw.normal(2, 3, 19), draw.normal(3)
    k, h = draw.normal(3, 11), draw.normal(3, 11)
    for mode in MODES:
        run = partial(convolve, mode=mode, skip=skip, backend=backend)
        whole = run(2 * u - 3 * v, k)
        assert_close(f"{mode}: linear in u", whole, 2 * run(u, k) - 3 * run(v, k), 10 * draw.tolerance)
        # The skip occurs once on both sides: 2 - 1 = 1.
        assert_close(f"{mode}: linear in the kernel", run(u, 2 * k - h), 2 * run(u, k) - run(u, h), 10 * draw.tolerance)


def check_convolution_commutes_with_shifts(backend: FFTBackend) -> None:
    """A shifted signal has a shifted output: rolled in circular mode, delayed in causal mode."""
    draw = Inputs(backend)
    u, kernel, steps = draw.normal(2, 3, 24), draw.normal(3, 24), 5
    around = convolve(torch.roll(u, steps, -1), kernel, mode="circular", backend=backend)
    expected = torch.roll(convolve(u, kernel, mode="circular", backend=backend), steps, -1)
    assert_close("circular convolution of a rolled signal", around, expected, draw.tolerance)
    later = torch.nn.functional.pad(u, (steps, 0))[..., : u.shape[-1]]
    expected = torch.nn.functional.pad(convolve(u, kernel, backend=backend), (steps, 0))[..., : u.shape[-1]]
    assert_close(
        "causal convolution of a delayed signal", convolve(later, kernel, backend=backend), expected, draw.tolerance
    )


def check_causality(backend: FFTBackend) -> None:
    """In causal mode, new values of u and of both gates from a token on do not change earlier outputs.

    In float64 the allowed change is 1e-9 of the output's size, far above an FFT's rounding and far below a leak.
    """
    draw = Inputs(backend)
    allowed = 1e-9 if draw.dtype == torch.float64 else draw.tolerance
    length = 40
    for taps in (length // 2, length, 2 * length + 1):
        kernel, skip = draw.normal(3, taps), draw.normal(3)
        before = {name: draw.normal(2, 3, length) for name in ("u", "pre_gate", "post_gate")}
        run: Callable[..., Tensor] = partial(convolve, kernel=kernel, skip=skip, backend=backend)
        y = run(**before)
        size = y.abs().max().item()
        if not size > 0:
            raise AssertionError("a causal convolution of noise is all zero, so its causality says nothing.")
        for name, token in itertools.product(before, (1, length // 2, length - 1)):
            after = dict(before)
            after[name] = torch.cat([before[name][..., :token], draw.normal(2, 3, length - token)], -1)
            change = (run(**after) - y).abs() / size
            leak = change[..., :token].max().item()
            if not leak <= allowed:
                raise AssertionError(
                    f"causal convolution sees the future: new {name} from token {token} on (K = {taps}) moves earlier "
                    f"outputs by {leak:.2g} of their size; at most {allowed:g} is rounding. Pad to L + K - 1 points, "
                    "and let nothing be shared along time."
                )
            if not change[..., token].max().item() > 1e-3:
                raise AssertionError(f"causal convolution ignores {name}: new values at token {token} change nothing.")


def check_convolution_gradients(backend: FFTBackend) -> None:
    """Gradients for u, kernel, skip and both gates agree with finite differences, and each with the definition."""
    draw = Inputs(backend)
    cases: tuple[tuple[Mode, int, tuple[int, ...]], ...] = (
        ("causal", 4, ()),
        ("causal", 13, (2,)),
        ("circular", 8, ()),
        ("centered", 5, ()),
    )
    for mode, taps, rows in cases:
        tensors = {
            "u": draw.normal(2, 3, 5),
            "kernel": draw.normal(*rows, 3, taps),
            "skip": draw.normal(3),
            "pre_gate": draw.normal(2, 3, 5),
            "post_gate": draw.normal(2, 3, 5),
        }
        run, exact = partial(convolve, mode=mode, backend=backend), partial(oracle_convolve, mode=mode)
        assert_gradients(f"{mode} convolution, K = {taps}", run, exact, tensors, draw.tolerance)


def check_convolution_of_strided_inputs(backend: FFTBackend) -> None:
    """Transposed (B, L, D) tensors give the same, contiguous outputs as contiguous (B, D, L) ones."""
    draw = Inputs(backend)
    kernel, skip = draw.normal(18, 3).transpose(0, 1), draw.normal(6)[::2]
    # In the second, rows are not in memory order, which some libraries keep in their output.
    for mode, order in itertools.product(MODES, ((0, 2, 1), (2, 1, 0))):
        shape = [(2, 3, 18)[order.index(axis)] for axis in range(3)]  # its permutation is (2, 3, 18)
        u, pre, post = (draw.normal(*shape).permute(order) for _ in range(3))
        y = convolve(u, kernel, mode=mode, skip=skip, pre_gate=pre, post_gate=post, backend=backend)
        expected = oracle_convolve(u, kernel, mode=mode, skip=skip, pre_gate=pre, post_gate=post)
        assert_close(f"{mode} convolution of strided inputs", y, expected, draw.tolerance)
        for what, result in (("gated", y), ("plain", convolve(u, kernel, mode=mode, backend=backend))):
            if not result.is_contiguous():
                raise AssertionError(f"{what} {mode} convolution: {describe(result)} is not contiguous: it must be.")


def check_convolution_of_an_empty_batch(backend: FFTBackend) -> None:
    """An empty batch gives (0, D, L), with a shared kernel and with one per row."""
    draw = Inputs(backend)
    for kernel in (draw.normal(3, 7), draw.normal(0, 3, 7)):
        y = convolve(draw.normal(0, 3, 8), kernel, backend=backend)
        if y.shape != (0, 3, 8):
            raise AssertionError(f"an empty batch (0, 3, 8) must come back as (0, 3, 8); got {tuple(y.shape)}.")
        _require_dtype(y, draw.dtype)


def check_prepared_kernels(backend: FFTBackend) -> None:
    """A prepared kernel gives the same outputs as the raw kernel for several signals."""
    draw = Inputs(backend)
    for mode, shape in itertools.product(MODES, ((3, 9), (3, 40), (2, 3, 9))):
        kernel, length = draw.normal(*shape), 16
        prepared = prepare_kernel(kernel, length, mode=mode, backend=backend)
        for use in ("first", "second"):
            u = draw.normal(2, 3, length)
            y = convolve(u, prepared, mode=mode, backend=backend)
            what = f"{use} use of a kernel {shape} prepared for {mode} mode"
            assert_close(what, y, convolve(u, kernel, mode=mode, backend=backend), draw.tolerance)
            assert_close(what, y, oracle_convolve(u, kernel, mode=mode), draw.tolerance)


def check_convolution_leaves_its_inputs_alone(backend: FFTBackend) -> None:
    """A convolution does not write to its inputs."""
    draw = Inputs(backend)
    tensors = [draw.normal(*shape) for shape in ((2, 3, 16), (3, 16), (3,), (2, 3, 16), (2, 3, 16))]
    copies = [tensor.clone() for tensor in tensors]
    u, kernel, skip, pre, post = tensors
    convolve(u, kernel, skip=skip, pre_gate=pre, post_gate=post, backend=backend)
    for name, tensor, copy in zip(("u", "kernel", "skip", "pre_gate", "post_gate"), tensors, copies, strict=True):
        if relative_error(tensor, copy) != 0.0:
            raise AssertionError(f"convolution wrote to its input {name}; work on a copy.")


def check_nan_comes_through_convolution(backend: FFTBackend) -> None:
    """A NaN in any input shows in all outputs that depend on it, so that a diverged model is noticed."""
    draw = Inputs(backend)
    shapes = {"u": (2, 3, 16), "kernel": (3, 16), "skip": (3,), "pre_gate": (2, 3, 16), "post_gate": (2, 3, 16)}
    for mode, name in itertools.product(MODES, shapes):
        tensors = {each: draw.normal(*shape) for each, shape in shapes.items()}
        poisoned = tensors[name]
        # Row 0, channel 0, and a token or tap in the middle where there is one.
        poisoned[(0,) * (poisoned.dim() - 1) + (poisoned.shape[-1] // 2 if name != "skip" else 0,)] = torch.nan
        y = convolve(**tensors, mode=mode, backend=backend)
        expected = oracle_convolve(**tensors, mode=mode).isnan()
        if not bool(y.cpu().isnan()[expected].all()):
            raise AssertionError(
                f"{mode} convolution hides a NaN in {name}: outputs that depend on it are finite. Do not replace NaN."
            )


def _require_dtype(y: Tensor, dtype: torch.dtype) -> None:
    if y.dtype != dtype:
        raise AssertionError(f"the output must have u's dtype {dtype}; got {describe(y)}.")
