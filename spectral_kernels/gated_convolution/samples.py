"""Device functions that load samples and taps, and that finish and store results."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def gated(X, GATE, at, n, L, GATED: tl.constexpr):
    """Samples n of a signal times its gate, zero from L on."""
    x = tl.load(X + at + n, mask=n < L, other=0.0).to(tl.float32)
    if GATED:
        x *= tl.load(GATE + at + n, mask=n < L, other=0.0).to(tl.float32)
    return x


@triton.jit
def halves(X, GATE, at, n, L, M, GATED: tl.constexpr, WIDE: tl.constexpr):
    """Samples n and n + M of a gated signal. The second half is not read unless the signal is WIDE, longer than M."""
    low = gated(X, GATE, at, n, L, GATED)
    if WIDE:
        return low, gated(X, GATE, at, n + M, L, GATED)
    else:
        return low, low


@triton.jit
def tap(KERNEL, at, p, K, FROM, N):
    """Point p of the negacyclic circle of N: the tap of lag p, or minus that of lag p - N. kernel[0] has lag FROM."""
    ahead = p - FROM
    behind = ahead - N
    here = tl.load(KERNEL + at + ahead, mask=(ahead >= 0) & (ahead < K), other=0.0).to(tl.float32)
    return here - tl.load(KERNEL + at + behind, mask=(behind >= 0) & (behind < K), other=0.0).to(tl.float32)


@triton.jit
def put_tap(KERNEL, at, p, value, K, FROM, N):
    ahead = p - FROM
    behind = ahead - N
    tl.store(KERNEL + at + ahead, value, mask=(ahead >= 0) & (ahead < K))
    tl.store(KERNEL + at + behind, -value, mask=(behind >= 0) & (behind < K))


@triton.jit
def put_output(y, U, PRE, SKIP, FACTOR, OUT, at, n, L,
               HAS_PRE: tl.constexpr, HAS_SKIP: tl.constexpr, HAS_FACTOR: tl.constexpr):  # fmt: skip
    """OUT = factor (y + skip pre u). The factor is the post gate, or, for the post gate's gradient, the output's."""
    if HAS_SKIP:
        y += tl.load(SKIP).to(tl.float32) * gated(U, PRE, at, n, L, HAS_PRE)
    if HAS_FACTOR:
        y *= tl.load(FACTOR + at + n, mask=n < L, other=0.0).to(tl.float32)
    tl.store(OUT + at + n, y, mask=n < L)


@triton.jit
def put_source(gx, GRAD, POST, U, PRE, SKIP, TO_U, TO_PRE, at, n, L,
               HAS_PRE: tl.constexpr, HAS_POST: tl.constexpr, HAS_SKIP: tl.constexpr):  # fmt: skip
    """With g = post grad and gx the correlation: TO_U = pre (gx + skip g), TO_PRE = u (gx + skip g).

    Returns the sum of g pre u, these samples' part of the skip's gradient; zero without a skip.
    """
    inside = n < L
    to_skip = 0.0
    if HAS_SKIP:
        g = gated(GRAD, POST, at, n, L, HAS_POST)
        gx += tl.load(SKIP).to(tl.float32) * g
        to_skip = tl.sum(tl.sum(g * gated(U, PRE, at, n, L, HAS_PRE), 1), 0)
    if HAS_PRE:
        tl.store(TO_PRE + at + n, gx * tl.load(U + at + n, mask=inside, other=0.0).to(tl.float32), mask=inside)
        gx *= tl.load(PRE + at + n, mask=inside, other=0.0).to(tl.float32)
    tl.store(TO_U + at + n, gx, mask=inside)
    return to_skip


@triton.jit
def natural(A: tl.constexpr, REST: tl.constexpr):
    """The index of every element of a tile [A, REST] in memory order."""
    return tl.arange(0, A)[:, None] * REST + tl.arange(0, REST)[None, :]
