"""A discrete Fourier transform as matrix products over digits of the index: the sizes and the tables.

With n = n1 S + n', S = M / A, and f = f1 + A f', a transform of M points splits into A x A products over n1, a
multiplication by twiddles, and transforms of S points over n' (Gentleman & Sande 1966; the "four-step" transform):

    X[f] = sum_n' e^(-2 pi i n' f' / S)  e^(-2 pi i n' f1 / M)  sum_n1 e^(-2 pi i n1 f1 / A) x[n1 S + n']

Applied again to n' this gives three digits A, B, C. With a ``shift`` s the bins lie at f - s: it enters the first
matrix and the first twiddles only. s = 1/4 makes the transform of x[n] + i x[n + M] diagonalise the *negacyclic*
convolution of 2M real samples (t^2M = -1), with no symmetry to unpack.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

LEAST_DIGIT = 16
"""The size of the smallest matrix product with a hardware instruction."""


class Digits(NamedTuple):
    """Sizes A, B, C of the three matrix products; C is 1 where two are enough."""

    a: int
    b: int
    c: int

    @property
    def points(self) -> int:
        return self.a * self.b * self.c


class Tables(NamedTuple):
    """The constants of a transform, as real pairs in float32, computed in float64.

    matrices: A x A, B x B, C x C, each its real then its imaginary part, one after another. first: twiddles
    (2, M / A, A). second: twiddles (2, C, B).
    """

    matrices: Tensor
    first: Tensor
    second: Tensor


ON_CHIP = {
    256: Digits(16, 16, 1),
    512: Digits(32, 16, 1),
    1024: Digits(32, 32, 1),
    2048: Digits(64, 32, 1),
    4096: Digits(16, 16, 16),
}
"""Digits by complex points, for transforms that one block holds on chip."""

ACROSS = {
    16: Digits(16, 1, 1),
    32: Digits(32, 1, 1),
    256: Digits(16, 16, 1),
    512: Digits(32, 16, 1),
    1024: Digits(32, 32, 1),
}
"""Digits by number of chunks, for longer transforms."""


@functools.lru_cache(maxsize=64)
def tables(digits: Digits, shift: float, device: torch.device, padded: Digits | None = None) -> Tables:
    """Tables for those digits. padded: larger sizes of the tiles; the additional rows and columns are zero."""
    padded = padded or digits
    a, b, c = digits
    matrices = [
        pair.flatten()
        for size, wide, at in ((a, padded.a, shift), (b, padded.b, 0.0), (c, padded.c, 0.0))
        for pair in _turns(size, size, size, at, (wide, wide))
    ]
    # n' = n2 C + n3 lies at n2 C' + n3 in a tile.
    first = _turns(b * c, a, digits.points, shift)
    first = torch.nn.functional.pad(
        first.view(2, b, c, a), (0, padded.a - a, 0, padded.c - c, 0, padded.b - b)
    ).flatten(1, 2)
    second = _turns(c, b, b * c, 0.0, (padded.c, padded.b))
    made = (torch.cat(matrices), first, second)
    return Tables(*(table.to(device, torch.float32).contiguous() for table in made))


@functools.lru_cache(maxsize=16)
def across_twiddles(digits: Digits, chunk: int, shift: float, device: torch.device) -> Tensor:
    """Twiddles (2, P, m) between P chunks, in the order of their bins on chip, and the m samples within each."""
    chunks = digits.points
    position = torch.arange(chunks)
    bins = position // digits.b + digits.a * (position % digits.b)  # position = f1 B + f2, bin = f1 + A f2
    angle = _angle(torch.arange(chunk), bins, chunks * chunk, shift).T
    return torch.stack([angle.cos(), -angle.sin()]).to(device, torch.float32)


def _turns(rows: int, columns: int, size: int, shift: float, padded: Sequence[int] | None = None) -> Tensor:
    """e^(-2 pi i n (f - shift) / size) for n < rows, f < columns, as real pairs (2, rows, columns) in float64."""
    angle = _angle(torch.arange(rows), torch.arange(columns), size, shift)
    pair = torch.stack([angle.cos(), -angle.sin()])
    if padded is None:
        return pair
    return torch.nn.functional.pad(pair, (0, padded[1] - columns, 0, padded[0] - rows))


def _angle(n: Tensor, f: Tensor, size: int, shift: float) -> Tensor:
    """2 pi n (f - shift) / size. The product is reduced modulo size exactly, since 4 shift is an integer."""
    quarters = n[:, None] * (4 * f[None, :] - round(4 * shift)) % (4 * size)
    return quarters.double() * (2 * math.pi / (4 * size))
