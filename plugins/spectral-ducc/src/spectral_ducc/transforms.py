"""Real transforms of whole tensors by ducc0 in blocks of rows, as operators with gradients of any order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ducc0  # type: ignore[import-not-found]
import numpy as np
import torch
from torch import Tensor

from spectral_ducc.blocks import Array, Blocks, slices, view, zeros
from spectral_kernels.operator import operator


def r2c(x: Array, out: Array, *, conjugate: bool = False, threads: int = 1) -> None:
    """out[f] = sum_t x[t] e^(-2 pi i f t / n) over the last axis, or its conjugate."""
    ducc0.fft.r2c(x, axes=(x.ndim - 1,), forward=not conjugate, out=out, nthreads=threads)


def c2r(spectrum: Array, out: Array, *, conjugate: bool = False, threads: int = 1) -> None:
    """The inverse of :func:`r2c`, scaled by 1/n. Overwrites the spectrum."""
    ducc0.fft.c2r(
        spectrum,
        axes=(spectrum.ndim - 1,),
        lastsize=out.shape[-1],
        forward=conjugate,
        inorm=2,
        out=out,
        nthreads=threads,
        allow_overwriting_input=True,
    )


def as_complex(pairs: Tensor) -> Array:
    """Contiguous real pairs (..., 2) seen as complex numbers."""
    array = view(pairs)
    seen: Array = array.view(complex_of(array.dtype))[..., 0]
    return seen


def complex_of(dtype: Any) -> np.dtype[Any]:
    return np.result_type(dtype, np.complex64)


def _rfft(x: Tensor, n: int, block_bytes: int | None, threads: int | None) -> Tensor:
    """(..., L) to real pairs (..., F, 2): X[f] = sum_t x[t] e^(-2 pi i f t / n), x cropped or zero-padded."""
    pairs = _rfft_fake(x, n)
    if not x.numel():
        return pairs
    rows = view(x.reshape(-1, x.shape[-1]))
    out = as_complex(pairs.view(len(rows), -1, 2))
    blocks = Blocks(block_bytes, threads)
    lines, size = blocks.lines(n, x.dtype), min(n, x.shape[-1])

    def prepare() -> Callable[[slice], None]:
        padded = zeros((min(lines, len(rows)), n), rows.dtype)

        def work(here: slice) -> None:
            count = here.stop - here.start
            padded[:count, :size] = rows[here, :size]
            r2c(padded[:count], out[here])

        return work

    blocks.run(slices(len(rows), lines), prepare)
    return pairs


def _rfft_fake(x: Tensor, n: int, *_: Any) -> Tensor:
    return x.new_empty(*x.shape[:-1], n // 2 + 1, 2)


def _irfft(real: Tensor, imag: Tensor, n: int, block_bytes: int | None, threads: int | None) -> Tensor:
    """The inverse, scaled by 1/n, (..., F) and (..., F) to (..., n). ducc0 ignores imag at DC and Nyquist."""
    out = _irfft_fake(real, imag, n)
    if not out.numel():
        return out
    a, b, c = (view(part.reshape(-1, part.shape[-1])) for part in (real, imag, out))
    blocks = Blocks(block_bytes, threads)
    lines = blocks.lines(n, real.dtype)

    def prepare() -> Callable[[slice], None]:
        spectrum = zeros((min(lines, len(a)), n // 2 + 1), complex_of(a.dtype))
        circle = zeros((len(spectrum), n), a.dtype)

        def work(here: slice) -> None:
            count = here.stop - here.start
            spectrum.real[:count], spectrum.imag[:count] = a[here], b[here]
            c2r(spectrum[:count], circle[:count])
            c[here] = circle[:count]

        return work

    blocks.run(slices(len(a), lines), prepare)
    return out


def _irfft_fake(real: Tensor, imag: Tensor, n: int, *_: Any) -> Tensor:
    return real.new_empty(*real.shape[:-1], n)


def _keep_rfft(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, ctx.n, *ctx.options = inputs
    ctx.length = x.shape[-1]


def _rfft_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    """With G the gradient in X's parts, x's is Re sum_f G[f] e^(2 pi i f t / n).

    The sum is over half of the spectrum, so it is n times the inverse of G with all but DC and Nyquist halved.
    """
    weights = _bins(ctx.n, ctx.n / 2, ctx.n, grad)
    circle = irfft(grad[..., 0] * weights, grad[..., 1] * weights, ctx.n, *ctx.options)
    return torch.nn.functional.pad(circle, (0, ctx.length - ctx.n)), None, None, None


def _keep_irfft(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, _, ctx.n, *ctx.options = inputs


def _irfft_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    """With g the gradient in x, X's parts' is w/n rfft(g), w = 1 at DC and Nyquist and 2 between."""
    pairs = rfft(grad, ctx.n, *ctx.options) * _bins(1 / ctx.n, 2 / ctx.n, ctx.n, grad)[:, None]
    return pairs[..., 0], pairs[..., 1], None, None, None


def _bins(ends: float, between: float, n: int, like: Tensor) -> Tensor:
    """A weight for DC and Nyquist, another for the bins that stand for their mirror images too."""
    weights = like.new_full((n // 2 + 1,), between)
    weights[0] = ends
    if n % 2 == 0:
        weights[-1] = ends
    return weights


rfft = operator(
    "spectral_ducc",
    "rfft(Tensor x, int n, int? block_bytes, int? threads) -> Tensor",
    _rfft,
    _rfft_fake,
    backward=_rfft_backward,
    keep=_keep_rfft,
    dispatch="CPU",
)
irfft = operator(
    "spectral_ducc",
    "irfft(Tensor real, Tensor imag, int n, int? block_bytes, int? threads) -> Tensor",
    _irfft,
    _irfft_fake,
    backward=_irfft_backward,
    keep=_keep_irfft,
    dispatch="CPU",
)
