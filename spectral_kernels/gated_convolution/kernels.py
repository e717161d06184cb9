"""Triton kernels of the gated convolution where a row fits on chip: one launch forward, one for all gradients.

Programs are ordered by channel, so that rows with the same response run together. A response is (2, M) in float32, real
and imaginary part, its bins in the order in which the transform leaves them.
"""

from __future__ import annotations

import triton
import triton.language as tl

from spectral_kernels.dft import inverse, times, transform
from spectral_kernels.gated_convolution.samples import halves, natural, put_output, put_source, put_tap, tap


@triton.jit
def respond(KERNEL, RESPONSE, MATRICES, FIRST, SECOND, K, FROM,
            A: tl.constexpr, B: tl.constexpr, C: tl.constexpr, PRECISION: tl.constexpr):  # fmt: skip
    """The response of each row of taps: (rows, K) to (rows, 2, M)."""
    M: tl.constexpr = A * B * C
    LAST: tl.constexpr = C if C > 1 else B
    row = tl.program_id(0).to(tl.int64)
    n, q = natural(A, M // A), natural(M // LAST, LAST)
    low, high = tap(KERNEL, row * K, n, K, FROM, 2 * M), tap(KERNEL, row * K, n + M, K, FROM, 2 * M)
    zr, zi = transform(low, high, MATRICES, FIRST, SECOND, A, B, C, 1, False, PRECISION)
    tl.store(RESPONSE + row * 2 * M + q, zr)
    tl.store(RESPONSE + row * 2 * M + M + q, zi)


@triton.jit
def collect(SPECTRA, TAPS, MATRICES, FIRST, SECOND, SPLITS, K, FROM,
            A: tl.constexpr, B: tl.constexpr, C: tl.constexpr, PRECISION: tl.constexpr):  # fmt: skip
    """The gradient of each row of taps: spectra (rows, SPLITS, 2, M), summed in their order, to (rows, K)."""
    M: tl.constexpr = A * B * C
    LAST: tl.constexpr = C if C > 1 else B
    row = tl.program_id(0).to(tl.int64)
    n, q = natural(A, M // A), natural(M // LAST, LAST)
    at = SPECTRA + row * SPLITS * 2 * M + q
    zr, zi = tl.load(at), tl.load(at + M)
    for split in range(1, SPLITS):
        zr += tl.load(at + split * 2 * M)
        zi += tl.load(at + split * 2 * M + M)
    low, high = inverse(zr, zi, MATRICES, FIRST, SECOND, A, B, C, 1, False, PRECISION)
    put_tap(TAPS, row * K, n, low, K, FROM, 2 * M)
    put_tap(TAPS, row * K, n + M, high, K, FROM, 2 * M)


@triton.jit
def convolve(U, PRE, POST, SKIP, RESPONSE, OUT, MATRICES, FIRST, SECOND, BATCH, DIM, L,
             PER_ROW: tl.constexpr, HAS_PRE: tl.constexpr, HAS_POST: tl.constexpr, HAS_SKIP: tl.constexpr,
             WIDE: tl.constexpr,
             A: tl.constexpr, B: tl.constexpr, C: tl.constexpr, PRECISION: tl.constexpr):  # fmt: skip
    """The whole convolution of one row."""
    M: tl.constexpr = A * B * C
    LAST: tl.constexpr = C if C > 1 else B
    d = (tl.program_id(0) // BATCH).to(tl.int64)
    row = (tl.program_id(0) % BATCH).to(tl.int64) * DIM + d
    n, q = natural(A, M // A), natural(M // LAST, LAST)
    low, high = halves(U, PRE, row * L, n, L, M, HAS_PRE, WIDE)
    zr, zi = transform(low, high, MATRICES, FIRST, SECOND, A, B, C, 1, not WIDE, PRECISION)
    at = RESPONSE + (row if PER_ROW else d) * 2 * M + q
    zr, zi = times(zr, zi, tl.load(at) * (1.0 / M), tl.load(at + M) * (1.0 / M))
    low, high = inverse(zr, zi, MATRICES, FIRST, SECOND, A, B, C, 1, not WIDE, PRECISION)
    put_output(low, U, PRE, SKIP + d, POST, OUT, row * L, n, L, HAS_PRE, HAS_SKIP, HAS_POST)
    if WIDE:
        put_output(high, U, PRE, SKIP + d, POST, OUT, row * L, n + M, L, HAS_PRE, HAS_SKIP, HAS_POST)


@triton.jit
def differentiate(GRAD, U, PRE, POST, SKIP, RESPONSE, TO_U, TO_PRE, TO_POST, TO_SKIP, SPECTRA,
                  MATRICES, FIRST, SECOND, BATCH, DIM, L, SPLITS,
                  PER_ROW: tl.constexpr, HAS_PRE: tl.constexpr, HAS_POST: tl.constexpr, HAS_SKIP: tl.constexpr,
                  TO_KERNEL: tl.constexpr, WIDE: tl.constexpr,
                  A: tl.constexpr, B: tl.constexpr, C: tl.constexpr, PRECISION: tl.constexpr):  # fmt: skip
    """Gradients of the rows split, split + SPLITS, ... of one channel; what they add to the kernel's and the skip's.

    SPECTRA: (D, SPLITS, 2, M). TO_SKIP: (D, SPLITS). Summed later in this order: the same numbers every time.
    """
    M: tl.constexpr = A * B * C
    LAST: tl.constexpr = C if C > 1 else B
    d, split = (tl.program_id(0) // SPLITS).to(tl.int64), tl.program_id(0) % SPLITS
    n, q = natural(A, M // A), natural(M // LAST, LAST)
    sum_r, sum_i = tl.zeros((M // LAST, LAST), tl.float32), tl.zeros((M // LAST, LAST), tl.float32)
    to_skip = 0.0
    for b in range(split, BATCH, SPLITS):
        row = d + b * DIM
        at = row * L
        low, high = halves(GRAD, POST, at, n, L, M, HAS_POST, WIDE)
        gr, gi = transform(low, high, MATRICES, FIRST, SECOND, A, B, C, 1, not WIDE, PRECISION)
        response = RESPONSE + (row if PER_ROW else d) * 2 * M + q
        if TO_KERNEL or HAS_POST:
            low, high = halves(U, PRE, at, n, L, M, HAS_PRE, WIDE)
            xr, xi = transform(low, high, MATRICES, FIRST, SECOND, A, B, C, 1, not WIDE, PRECISION)
            if TO_KERNEL:
                sum_r += gr * xr + gi * xi
                sum_i += gi * xr - gr * xi
            if HAS_POST:
                zr, zi = times(xr, xi, tl.load(response) * (1.0 / M), tl.load(response + M) * (1.0 / M))
                low, high = inverse(zr, zi, MATRICES, FIRST, SECOND, A, B, C, 1, not WIDE, PRECISION)
                put_output(low, U, PRE, SKIP + d, GRAD, TO_POST, at, n, L, HAS_PRE, HAS_SKIP, True)
                if WIDE:
                    put_output(high, U, PRE, SKIP + d, GRAD, TO_POST, at, n + M, L, HAS_PRE, HAS_SKIP, True)
        zr, zi = times(gr, gi, tl.load(response) * (1.0 / M), tl.load(response + M) * (-1.0 / M))
        low, high = inverse(zr, zi, MATRICES, FIRST, SECOND, A, B, C, 1, not WIDE, PRECISION)
        to_skip += put_source(
            low, GRAD, POST, U, PRE, SKIP + d, TO_U, TO_PRE, at, n, L, HAS_PRE, HAS_POST, HAS_SKIP
        )  # fmt: skip
        if WIDE:
            to_skip += put_source(
                high, GRAD, POST, U, PRE, SKIP + d, TO_U, TO_PRE, at, n + M, L, HAS_PRE, HAS_POST, HAS_SKIP
            )  # fmt: skip
    if TO_KERNEL:
        at = SPECTRA + (d * SPLITS + split) * 2 * M + q
        tl.store(at, sum_r * (1.0 / M))
        tl.store(at + M, sum_i * (1.0 / M))
    if HAS_SKIP:
        tl.store(TO_SKIP + d * SPLITS + split, to_skip)
