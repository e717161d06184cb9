"""Triton kernels of modulation: transform, fields and inverse of one row on chip, one launch each way.

Each digit of the tile is a power of two, while the transform has exactly n = NA NB NC points; tables are zero beyond
them. Fields are read by their strides: a broadcast axis has stride 0.
"""

from __future__ import annotations

import triton
import triton.language as tl

from spectral_kernels.dft import inverse, times, transform


@triton.jit
def _samples(NA, NB, NC, A: tl.constexpr, B: tl.constexpr, C: tl.constexpr):
    """The index of the sample at each place of a tile [A, B C], and a mask of valid places."""
    n1, rest = tl.arange(0, A)[:, None], tl.arange(0, B * C)[None, :]
    n2, n3 = rest // C, rest % C
    return (n1 * NB + n2) * NC + n3, (n1 < NA) & (n2 < NB) & (n3 < NC)


@triton.jit
def _bins(NA, NB, NC, A: tl.constexpr, B: tl.constexpr, C: tl.constexpr):
    """The index of the bin at each place of a tile of bins (f1, f2, f3), and a mask of valid places."""
    LAST: tl.constexpr = C if C > 1 else B
    q = tl.arange(0, A * B * C // LAST)[:, None] * LAST + tl.arange(0, LAST)[None, :]
    f1, f2, f3 = q // (B * C), q // C % B, q % C
    return f1 + NA * (f2 + NB * f3), (f1 < NA) & (f2 < NB) & (f3 < NC)


@triton.jit
def _row(X, at, L, t, here, MATRICES, FIRST, SECOND,
         A: tl.constexpr, B: tl.constexpr, C: tl.constexpr, PRECISION: tl.constexpr):  # fmt: skip
    x = tl.load(X + at + t, mask=here & (t < L), other=0.0).to(tl.float32)
    return transform(x, x, MATRICES, FIRST, SECOND, A, B, C, 1, True, PRECISION)


@triton.jit
def _field(GAIN, PHASE, b, d, k, there, GB, GD, GF, PB, PD, PF, HAS_GAIN: tl.constexpr, HAS_PHASE: tl.constexpr):
    """Gain, cosine and sine at bins k."""
    gain = tl.where(there, 1.0, 0.0)
    cosine, sine = gain, 0.0 * gain
    if HAS_GAIN:
        gain = tl.load(GAIN + b * GB + d * GD + k * GF, mask=there, other=0.0)
    if HAS_PHASE:
        phase = tl.load(PHASE + b * PB + d * PD + k * PF, mask=there, other=0.0)
        cosine, sine = tl.cos(phase), tl.sin(phase)
    return gain, cosine, sine


@triton.jit
def modulate(X, GAIN, PHASE, OUT, MATRICES, FIRST, SECOND, DIM, L, N, NA, NB, NC, GB, GD, GF, PB, PD, PF,
             HAS_GAIN: tl.constexpr, HAS_PHASE: tl.constexpr,
             A: tl.constexpr, B: tl.constexpr, C: tl.constexpr, PRECISION: tl.constexpr):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    t, here = _samples(NA, NB, NC, A, B, C)
    f, there = _bins(NA, NB, NC, A, B, C)
    # A bin above n/2 is the conjugate of its mirror.
    mirror = 2 * f > N
    gain, cosine, sine = _field(
        GAIN, PHASE, row // DIM, row % DIM, tl.where(mirror, N - f, f), there, GB, GD, GF, PB, PD, PF, HAS_GAIN,
        HAS_PHASE
    )  # fmt: skip
    zr, zi = _row(X, row * L, tl.minimum(L, N), t, here, MATRICES, FIRST, SECOND, A, B, C, PRECISION)
    zr, zi = times(zr, zi, gain * cosine, gain * tl.where(mirror, -sine, sine))
    y, _ = inverse(zr, zi, MATRICES, FIRST, SECOND, A, B, C, 1, True, PRECISION)
    tl.store(OUT + row * N + t, y / N, mask=here)


@triton.jit
def differentiate(GRAD, X, GAIN, PHASE, TO_X, TO_GAIN, TO_PHASE, MATRICES, FIRST, SECOND,
                  DIM, L, N, NA, NB, NC, GB, GD, GF, PB, PD, PF,
                  HAS_GAIN: tl.constexpr, HAS_PHASE: tl.constexpr,
                  A: tl.constexpr, B: tl.constexpr, C: tl.constexpr, PRECISION: tl.constexpr):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    t, here = _samples(NA, NB, NC, A, B, C)
    f, there = _bins(NA, NB, NC, A, B, C)
    mirror = 2 * f > N
    gain, cosine, sine = _field(
        GAIN, PHASE, row // DIM, row % DIM, tl.where(mirror, N - f, f), there, GB, GD, GF, PB, PD, PF, HAS_GAIN,
        HAS_PHASE
    )  # fmt: skip
    gr, gi = _row(GRAD, row * N, N, t, here, MATRICES, FIRST, SECOND, A, B, C, PRECISION)
    if HAS_GAIN or HAS_PHASE:
        xr, xi = _row(X, row * L, tl.minimum(L, N), t, here, MATRICES, FIRST, SECOND, A, B, C, PRECISION)
        zr, zi = times(xr, xi, cosine, sine)
        # Bins below n/2 stand for their mirror too.
        weight = tl.where((f == 0) | (2 * f == N), 1.0, 2.0) / N
        at, own = row * (N // 2 + 1) + f, there & (2 * f <= N)
        if HAS_GAIN:
            tl.store(TO_GAIN + at, weight * (zr * gr + zi * gi), mask=own)
        if HAS_PHASE:
            tl.store(TO_PHASE + at, weight * gain * (zr * gi - zi * gr), mask=own)
    zr, zi = times(gr, gi, gain * cosine, gain * tl.where(mirror, sine, -sine))
    gx, _ = inverse(zr, zi, MATRICES, FIRST, SECOND, A, B, C, 1, True, PRECISION)
    tl.store(TO_X + row * L + t, gx / N, mask=here & (t < L))
