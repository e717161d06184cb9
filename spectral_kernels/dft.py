"""Device functions: a transform of a tile on chip, forward and back (:mod:`.factors` has the mathematics).

A tile is a matrix of float32; real and imaginary parts are two tiles. Every stage multiplies the leading digit of the
index by its matrix and rotates it to the end: [digit, rest] -> [rest, digit]. After all stages, a tile in natural order
(n1, n2, n3, r) is (r, f1, f2, f3), where r counts columns that are transformed side by side. The inverse undoes the
stages in reverse, so bins are never reordered.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def rounded(x, PRECISION: tl.constexpr):
    """Rounds to the nearest TF32 where products are in TF32: tensor cores truncate, which would bias every stage."""
    if PRECISION == "tf32":
        bits = x.to(tl.int32, bitcast=True)
        # Half a unit of the last place kept; ties away from zero. Infinity and NaN have no place to spare.
        finite = (bits & 0x7F800000) != 0x7F800000
        x = tl.where(finite, (bits + 0x1000) & -0x2000, bits).to(tl.float32, bitcast=True)
    return x


@triton.jit
def product(x, y, PRECISION: tl.constexpr):
    return tl.dot(rounded(x, PRECISION), rounded(y, PRECISION), input_precision=PRECISION)


@triton.jit
def matrix(at, SIZE: tl.constexpr):
    index = tl.arange(0, SIZE)[:, None] * SIZE + tl.arange(0, SIZE)[None, :]
    return tl.load(at + index), tl.load(at + SIZE * SIZE + index)


@triton.jit
def times(ar, ai, br, bi):
    """Product of complex numbers."""
    return ar * br - ai * bi, ar * bi + ai * br


@triton.jit
def contract(zr, zi, fr, fi, REAL: tl.constexpr, PRECISION: tl.constexpr):
    """Complex matrix product z f; of a real z, half the work."""
    if REAL:
        return product(zr, fr, PRECISION), product(zr, fi, PRECISION)
    else:
        return (
            product(zr, fr, PRECISION) - product(zi, fi, PRECISION),
            product(zr, fi, PRECISION) + product(zi, fr, PRECISION),
        )


@triton.jit
def rotate(z, NEXT: tl.constexpr, SIZE: tl.constexpr):
    """[rest, digit] in memory order (next, others, digit) to [others digit, next]."""
    return tl.trans(tl.reshape(z, (NEXT, SIZE // NEXT)))


@triton.jit
def rotate_back(z, BEFORE: tl.constexpr, SIZE: tl.constexpr):
    return tl.reshape(tl.trans(z), (SIZE // BEFORE, BEFORE))


@triton.jit
def twiddles(at, ROWS: tl.constexpr, DIGIT: tl.constexpr, EACH: tl.constexpr):
    """Twiddles (ROWS / EACH, DIGIT) for a tile [ROWS, DIGIT] in which EACH rows share them."""
    index = (tl.arange(0, ROWS)[:, None] // EACH) * DIGIT + tl.arange(0, DIGIT)[None, :]
    return tl.load(at + index), tl.load(at + (ROWS // EACH) * DIGIT + index)


@triton.jit
def transform(zr, zi, MATRICES, FIRST, SECOND,
              A: tl.constexpr, B: tl.constexpr, C: tl.constexpr, R: tl.constexpr, REAL: tl.constexpr,
              PRECISION: tl.constexpr):  # fmt: skip
    """Tiles [A, B C R] in natural order to tiles [size / last, last] of bins. REAL: zi is not read."""
    SIZE: tl.constexpr = A * B * C * R
    fr, fi = matrix(MATRICES, A)
    zr, zi = contract(tl.trans(zr), tl.trans(zi), fr, fi, REAL, PRECISION)
    if B > 1:
        tr, ti = twiddles(FIRST, SIZE // A, A, R)
        zr, zi = times(zr, zi, tr, ti)
        fr, fi = matrix(MATRICES + 2 * A * A, B)
        zr, zi = contract(rotate(zr, B, SIZE), rotate(zi, B, SIZE), fr, fi, False, PRECISION)
    if C > 1:
        tr, ti = twiddles(SECOND, SIZE // B, B, R * A)
        zr, zi = times(zr, zi, tr, ti)
        fr, fi = matrix(MATRICES + 2 * A * A + 2 * B * B, C)
        zr, zi = contract(rotate(zr, C, SIZE), rotate(zi, C, SIZE), fr, fi, False, PRECISION)
    return zr, zi


@triton.jit
def inverse(zr, zi, MATRICES, FIRST, SECOND,
            A: tl.constexpr, B: tl.constexpr, C: tl.constexpr, R: tl.constexpr, REAL: tl.constexpr,
            PRECISION: tl.constexpr):  # fmt: skip
    """Tiles of bins back to tiles [A, B C R], not divided by A B C. REAL: only the real part, returned twice."""
    SIZE: tl.constexpr = A * B * C * R
    if C > 1:
        fr, fi = matrix(MATRICES + 2 * A * A + 2 * B * B, C)
        zr, zi = contract(zr, zi, fr, -fi, False, PRECISION)
        zr, zi = rotate_back(zr, B, SIZE), rotate_back(zi, B, SIZE)
        tr, ti = twiddles(SECOND, SIZE // B, B, R * A)
        zr, zi = times(zr, zi, tr, -ti)
    if B > 1:
        fr, fi = matrix(MATRICES + 2 * A * A, B)
        zr, zi = contract(zr, zi, fr, -fi, False, PRECISION)
        zr, zi = rotate_back(zr, A, SIZE), rotate_back(zi, A, SIZE)
        tr, ti = twiddles(FIRST, SIZE // A, A, R)
        zr, zi = times(zr, zi, tr, -ti)
    fr, fi = matrix(MATRICES, A)
    fr, fi = tl.trans(fr), tl.trans(fi)
    yr = tl.trans(product(zr, fr, PRECISION) + product(zi, fi, PRECISION))
    if REAL:
        return yr, yr
    else:
        return yr, tl.trans(product(zi, fr, PRECISION) - product(zr, fi, PRECISION))
