"""Modulation as a ``torch.library`` operator with its gradients. Triton is imported at the first launch."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from spectral_kernels.factors import LEAST_DIGIT, Digits, tables
from spectral_kernels.launch import PRECISION, refuse_higher_order, run
from spectral_kernels.operator import differentiable_operator

LONGEST = 4096
"""Elements of the largest tile."""
_LARGEST_DIGIT = 64


def modulation(x: Tensor, gain: Tensor | None, phase: Tensor | None, n: int) -> Tensor:
    """irfft(gain e^(i phase) rfft(x, n), n), imaginary parts at DC and Nyquist dropped.

    x: (B, D, L), float32, float16 or bfloat16. gain, phase: float32, broadcastable to (B, D, n // 2 + 1). n must be one
    that :func:`fits`. Returns a contiguous (B, D, n) in x's dtype. Differentiable. ``reference.py`` is the definition.
    """
    full = (*x.shape[:2], n // 2 + 1)
    gain, phase = (None if field is None else field.expand(full) for field in (gain, phase))
    y: Tensor = _MODULATION(x, gain, phase, n)
    return y


@functools.lru_cache(maxsize=256)
def digits(n: int) -> tuple[Digits, Digits] | None:
    """Digits whose product is n, and their sizes in the smallest tile, powers of two; None if no digits fit."""
    found = [
        (Digits(a, b, n // (a * b)), padded)
        for a in range(1, _LARGEST_DIGIT + 1)
        for b in range(1, _LARGEST_DIGIT + 1)
        if n % (a * b) == 0 and n // (a * b) <= _LARGEST_DIGIT
        for padded in [Digits(_power(a), _power(b), 1 if n == a * b else _power(n // (a * b)))]
        if padded.points <= LONGEST
    ]
    # Of equal tiles, the one with the smallest matrices.
    return min(found, key=lambda each: (each[1].points, max(each[1])), default=None)


def fits(n: int) -> bool:
    """Whether a transform of n points has :func:`digits`."""
    return digits(n) is not None


# What torch.compiler.assume_constant_result sets, without importing the compiler: the search need not be traced.
fits._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _power(digit: int) -> int:
    return max(LEAST_DIGIT, 1 << (digit - 1).bit_length())


def _forward(x: Tensor, gain: Tensor | None, phase: Tensor | None, n: int) -> Tensor:
    from spectral_kernels.modulation import kernels

    x = x.detach().contiguous()
    out = torch.empty((*x.shape[:2], n), dtype=x.dtype, device=x.device)
    constants, turning, sizes = _constants(x, gain, phase, n)
    run(
        kernels.modulate, x.shape[0] * x.shape[1], x,
        x, x if gain is None else gain, x if phase is None else phase, out, *turning, *sizes, **constants,
    )  # fmt: skip
    return out


def _gradients(
    grad: Tensor, x: Tensor, gain: Tensor | None, phase: Tensor | None, n: int, wanted: Sequence[bool]
) -> list[Tensor]:
    """Gradients of x, gain and phase. With z = e^(i phase) X and G the transform of the output's gradient, at bin f:

    gain: w/n Re(z conj G). phase: -w/n gain Im(z conj G). x: the transform back of conj(gain e^(i phase)) G.
    """
    from spectral_kernels.modulation import kernels

    grad, x = grad.contiguous(), x.detach().contiguous()
    to_x = torch.zeros_like(x) if x.shape[-1] > n else torch.empty_like(x)
    to_gain, to_phase = (
        torch.empty(0 if field is None else field.shape, dtype=torch.float32, device=x.device)
        for field in (gain, phase)
    )
    constants, turning, sizes = _constants(x, gain, phase, n)
    run(
        kernels.differentiate, x.shape[0] * x.shape[1], x,
        grad, x, x if gain is None else gain, x if phase is None else phase, to_x, to_gain, to_phase,
        *turning, *sizes, **constants,
    )  # fmt: skip
    return [to_x, to_gain, to_phase]


def _constants(
    x: Tensor, gain: Tensor | None, phase: Tensor | None, n: int
) -> tuple[dict[str, Any], tuple[Tensor, ...], tuple[int, ...]]:
    """Constants of the kernels, their tables, and their sizes and strides."""
    cut = digits(n)
    assert cut is not None, f"n = {n} has no digits that fit"
    exact, padded = cut
    constants = {
        "HAS_GAIN": gain is not None, "HAS_PHASE": phase is not None,
        "A": padded.a, "B": padded.b, "C": padded.c, "PRECISION": PRECISION[x.dtype],
    }  # fmt: skip
    strides = [stride for field in (gain, phase) for stride in ((0, 0, 0) if field is None else field.stride())]
    return constants, tables(exact, 0.0, x.device, padded), (x.shape[1], x.shape[2], n, *exact, *strides)


def _forward_fake(x: Tensor, gain: Tensor | None, phase: Tensor | None, n: int) -> Tensor:
    return torch.empty((*x.shape[:2], n), dtype=x.dtype, device=x.device)


_MODULATION = differentiable_operator(
    "spectral_kernels",
    "modulation(Tensor x, Tensor? gain, Tensor? phase, int n) -> Tensor",
    _forward,
    _forward_fake,
    gradients=_gradients,
    second=refuse_higher_order,
)
