"""Triton kernels of the gated convolution where a row does not fit on chip: three passes over a workspace.

M = P m points are P chunks of m. Pass 1 transforms across chunks, R columns of all chunks at a time, and turns the
result (``spread``); pass 2 transforms each chunk on chip, multiplies by its part of the response, and transforms back
in place; pass 3 undoes pass 1 and finishes as a row on chip would (``gather``). A workspace is (rows, 2, P, m) in
float32, real and imaginary part, its P bins in the order in which the transform leaves them. Rows are those of some
channels, from START on, channel by channel.
"""

from __future__ import annotations

import triton
import triton.language as tl

from spectral_kernels.dft import inverse, times, transform
from spectral_kernels.gated_convolution.samples import halves, natural, put_output, put_source, put_tap, tap


@triton.jit
def _columns(tile, CHUNK, P: tl.constexpr, R: tl.constexpr):
    """Index of R columns of every chunk: [P, R]."""
    return tl.arange(0, P)[:, None] * CHUNK + tile * R + tl.arange(0, R)[None, :]


@triton.jit
def _leave(low, high, WORK, TURNS, at, n, M, MATRICES, FIRST,
           A: tl.constexpr, B: tl.constexpr, R: tl.constexpr, REAL: tl.constexpr,
           PRECISION: tl.constexpr):  # fmt: skip
    """Across chunks, turned, to the workspace."""
    P: tl.constexpr = A * B
    # One row of digits [A, B R] is the same memory as [P, R].
    low, high = tl.reshape(low, (A, B * R)), tl.reshape(high, (A, B * R))
    zr, zi = transform(low, high, MATRICES, FIRST, FIRST, A, B, 1, R, REAL, PRECISION)
    zr, zi = tl.trans(tl.reshape(zr, (R, P))), tl.trans(tl.reshape(zi, (R, P)))
    zr, zi = times(zr, zi, tl.load(TURNS + n), tl.load(TURNS + M + n))
    tl.store(WORK + at + n, zr)
    tl.store(WORK + at + M + n, zi)


@triton.jit
def _return(WORK, TURNS, at, n, M, MATRICES, FIRST,
            A: tl.constexpr, B: tl.constexpr, R: tl.constexpr, REAL: tl.constexpr,
            PRECISION: tl.constexpr):  # fmt: skip
    """From the workspace, turned back, across chunks: [P, R] of both halves."""
    P: tl.constexpr = A * B
    LAST: tl.constexpr = B if B > 1 else A
    zr, zi = times(tl.load(WORK + at + n), tl.load(WORK + at + M + n), tl.load(TURNS + n), -tl.load(TURNS + M + n))
    zr, zi = tl.reshape(tl.trans(zr), (R * P // LAST, LAST)), tl.reshape(tl.trans(zi), (R * P // LAST, LAST))
    low, high = inverse(zr, zi, MATRICES, FIRST, FIRST, A, B, 1, R, REAL, PRECISION)
    return tl.reshape(low, (P, R)), tl.reshape(high, (P, R))


@triton.jit
def _place(TILES, BATCH, DIM, START):
    """Which row of the workspace, row of the tensors, channel and tile of columns a program has."""
    work, tile = (tl.program_id(0) // TILES).to(tl.int64), tl.program_id(0) % TILES
    d = START + work // BATCH
    return work, (work % BATCH) * DIM + d, d, tile


@triton.jit
def spread(X, GATE, WORK, TURNS, MATRICES, FIRST, BATCH, DIM, START, L, CHUNK, TILES,
           HAS_GATE: tl.constexpr, WIDE: tl.constexpr,
           A: tl.constexpr, B: tl.constexpr, R: tl.constexpr, PRECISION: tl.constexpr):  # fmt: skip
    """Pass 1 of a gated signal."""
    work, row, _, tile = _place(TILES, BATCH, DIM, START)
    M = A * B * CHUNK
    n = _columns(tile, CHUNK, A * B, R)
    low, high = halves(X, GATE, row * L, n, L, M, HAS_GATE, WIDE)
    _leave(low, high, WORK, TURNS, work * 2 * M, n, M, MATRICES, FIRST, A, B, R, not WIDE, PRECISION)


@triton.jit
def spread_taps(KERNEL, WORK, TURNS, MATRICES, FIRST, K, FROM, CHUNK, TILES,
                A: tl.constexpr, B: tl.constexpr, R: tl.constexpr, PRECISION: tl.constexpr):  # fmt: skip
    """Pass 1 of rows of taps."""
    work, tile = (tl.program_id(0) // TILES).to(tl.int64), tl.program_id(0) % TILES
    M = A * B * CHUNK
    n = _columns(tile, CHUNK, A * B, R)
    low, high = tap(KERNEL, work * K, n, K, FROM, 2 * M), tap(KERNEL, work * K, n + M, K, FROM, 2 * M)
    _leave(low, high, WORK, TURNS, work * 2 * M, n, M, MATRICES, FIRST, A, B, R, False, PRECISION)


@triton.jit
def respond_chunks(WORK, MATRICES, FIRST, SECOND, CHUNKS,
                   A: tl.constexpr, B: tl.constexpr, C: tl.constexpr, PRECISION: tl.constexpr):  # fmt: skip
    """Pass 2 of taps: each chunk's bins, in place."""
    m: tl.constexpr = A * B * C
    LAST: tl.constexpr = C if C > 1 else B
    at = WORK + (tl.program_id(0) // CHUNKS).to(tl.int64) * 2 * CHUNKS * m + tl.program_id(0) % CHUNKS * m
    n, q = natural(A, m // A), natural(m // LAST, LAST)
    zr, zi = tl.load(at + n), tl.load(at + CHUNKS * m + n)
    zr, zi = transform(zr, zi, MATRICES, FIRST, SECOND, A, B, C, 1, False, PRECISION)
    tl.store(at + q, zr)
    tl.store(at + CHUNKS * m + q, zi)


@triton.jit
def convolve_chunks(WORK, RESPONSE, MATRICES, FIRST, SECOND, BATCH, CHUNKS,
                    PER_ROW: tl.constexpr,
                    A: tl.constexpr, B: tl.constexpr, C: tl.constexpr, PRECISION: tl.constexpr):  # fmt: skip
    """Pass 2: each chunk filtered in place. RESPONSE has a row per channel, or (PER_ROW) per row of the workspace."""
    m: tl.constexpr = A * B * C
    LAST: tl.constexpr = C if C > 1 else B
    M = CHUNKS * m
    work, chunk = (tl.program_id(0) // CHUNKS).to(tl.int64), tl.program_id(0) % CHUNKS
    n, q = natural(A, m // A), natural(m // LAST, LAST)
    at = WORK + work * 2 * M + chunk * m + n
    zr, zi = transform(tl.load(at), tl.load(at + M), MATRICES, FIRST, SECOND, A, B, C, 1, False, PRECISION)
    response = RESPONSE + (work if PER_ROW else work // BATCH) * 2 * M + chunk * m + q
    zr, zi = times(zr, zi, tl.load(response) * (1.0 / M), tl.load(response + M) * (1.0 / M))
    zr, zi = inverse(zr, zi, MATRICES, FIRST, SECOND, A, B, C, 1, False, PRECISION)
    tl.store(at, zr)
    tl.store(at + M, zi)


@triton.jit
def differentiate_chunks(WORK_X, WORK_G, WORK_KERNEL, RESPONSE, MATRICES, FIRST, SECOND, BATCH, CHUNKS,
                         PER_ROW: tl.constexpr, HAS_POST: tl.constexpr, TO_KERNEL: tl.constexpr,
                         A: tl.constexpr, B: tl.constexpr, C: tl.constexpr, PRECISION: tl.constexpr):  # fmt: skip
    """Pass 2 of all gradients: one chunk of one row of the kernel and of the rows that share it, in order.

    WORK_G: the output's gradient, becomes the source's. WORK_X: the signal, becomes (HAS_POST) the output.
    """
    m: tl.constexpr = A * B * C
    LAST: tl.constexpr = C if C > 1 else B
    M = CHUNKS * m
    shared, chunk = (tl.program_id(0) // CHUNKS).to(tl.int64), tl.program_id(0) % CHUNKS
    n, q = natural(A, m // A), natural(m // LAST, LAST)
    sum_r, sum_i = tl.zeros((m // LAST, LAST), tl.float32), tl.zeros((m // LAST, LAST), tl.float32)
    response = RESPONSE + shared * 2 * M + chunk * m + q
    for b in range(1 if PER_ROW else BATCH):
        work = (shared if PER_ROW else shared * BATCH + b) * 2 * M + chunk * m + n
        at = WORK_G + work
        gr, gi = transform(tl.load(at), tl.load(at + M), MATRICES, FIRST, SECOND, A, B, C, 1, False, PRECISION)
        if TO_KERNEL or HAS_POST:
            at = WORK_X + work
            xr, xi = transform(tl.load(at), tl.load(at + M), MATRICES, FIRST, SECOND, A, B, C, 1, False, PRECISION)
            if TO_KERNEL:
                sum_r += gr * xr + gi * xi
                sum_i += gi * xr - gr * xi
            if HAS_POST:
                zr, zi = times(xr, xi, tl.load(response) * (1.0 / M), tl.load(response + M) * (1.0 / M))
                zr, zi = inverse(zr, zi, MATRICES, FIRST, SECOND, A, B, C, 1, False, PRECISION)
                tl.store(at, zr)
                tl.store(at + M, zi)
        zr, zi = times(gr, gi, tl.load(response) * (1.0 / M), tl.load(response + M) * (-1.0 / M))
        zr, zi = inverse(zr, zi, MATRICES, FIRST, SECOND, A, B, C, 1, False, PRECISION)
        tl.store(WORK_G + work, zr)
        tl.store(WORK_G + work + M, zi)
    if TO_KERNEL:
        zr, zi = inverse(
            sum_r * (1.0 / M), sum_i * (1.0 / M), MATRICES, FIRST, SECOND, A, B, C, 1, False, PRECISION
        )  # fmt: skip
        at = WORK_KERNEL + shared * 2 * M + chunk * m + n
        tl.store(at, zr)
        tl.store(at + M, zi)


@triton.jit
def gather_output(WORK, U, PRE, SKIP, FACTOR, OUT, TURNS, MATRICES, FIRST, BATCH, DIM, START, L, CHUNK, TILES,
                  HAS_PRE: tl.constexpr, HAS_SKIP: tl.constexpr, HAS_FACTOR: tl.constexpr, WIDE: tl.constexpr,
                  A: tl.constexpr, B: tl.constexpr, R: tl.constexpr, PRECISION: tl.constexpr):  # fmt: skip
    """Pass 3 of an output, or of the post gate's gradient."""
    work, row, d, tile = _place(TILES, BATCH, DIM, START)
    M = A * B * CHUNK
    n = _columns(tile, CHUNK, A * B, R)
    low, high = _return(WORK, TURNS, work * 2 * M, n, M, MATRICES, FIRST, A, B, R, not WIDE, PRECISION)
    put_output(low, U, PRE, SKIP + d, FACTOR, OUT, row * L, n, L, HAS_PRE, HAS_SKIP, HAS_FACTOR)
    if WIDE:
        put_output(high, U, PRE, SKIP + d, FACTOR, OUT, row * L, n + M, L, HAS_PRE, HAS_SKIP, HAS_FACTOR)


@triton.jit
def gather_source(WORK, GRAD, POST, U, PRE, SKIP, TO_U, TO_PRE, TO_SKIP, TURNS, MATRICES, FIRST,
                  BATCH, DIM, START, L, CHUNK, TILES,
                  HAS_PRE: tl.constexpr, HAS_POST: tl.constexpr, HAS_SKIP: tl.constexpr, WIDE: tl.constexpr,
                  A: tl.constexpr, B: tl.constexpr, R: tl.constexpr, PRECISION: tl.constexpr):  # fmt: skip
    """Pass 3 of the gradients of the signal and its gate. TO_SKIP: (rows of the workspace, TILES)."""
    work, row, d, tile = _place(TILES, BATCH, DIM, START)
    M = A * B * CHUNK
    n = _columns(tile, CHUNK, A * B, R)
    at = row * L
    low, high = _return(WORK, TURNS, work * 2 * M, n, M, MATRICES, FIRST, A, B, R, not WIDE, PRECISION)
    to_skip = put_source(low, GRAD, POST, U, PRE, SKIP + d, TO_U, TO_PRE, at, n, L, HAS_PRE, HAS_POST, HAS_SKIP)
    if WIDE:
        to_skip += put_source(
            high, GRAD, POST, U, PRE, SKIP + d, TO_U, TO_PRE, at, n + M, L, HAS_PRE, HAS_POST, HAS_SKIP
        )  # fmt: skip
    if HAS_SKIP:
        tl.store(TO_SKIP + work * TILES + tile, to_skip)


@triton.jit
def gather_taps(WORK, TAPS, TURNS, MATRICES, FIRST, K, FROM, CHUNK, TILES,
                A: tl.constexpr, B: tl.constexpr, R: tl.constexpr, PRECISION: tl.constexpr):  # fmt: skip
    """Pass 3 of the kernel's gradient."""
    work, tile = (tl.program_id(0) // TILES).to(tl.int64), tl.program_id(0) % TILES
    M = A * B * CHUNK
    n = _columns(tile, CHUNK, A * B, R)
    low, high = _return(WORK, TURNS, work * 2 * M, n, M, MATRICES, FIRST, A, B, R, False, PRECISION)
    put_tap(TAPS, work * K, n, low, K, FROM, 2 * M)
    put_tap(TAPS, work * K, n + M, high, K, FROM, 2 * M)
