"""DFTs as products with real matrices, for devices and exporters that have no FFT and no complex dtype.

A transform of n = a b points in four steps. With t = t1 b + t2, f = f1 + a f2 and w_n = e^(-2 pi i / n),

    X[f1 + a f2] = sum_t2 w_b^(t2 f2) ( w_n^(t2 f1) sum_t1 x[t1 b + t2] w_a^(t1 f1) ):

a product with the a x a matrix w_a, a multiplication by the n factors w_n^(t2 f1), and the same again for the remaining
b points. For a real signal, the first product needs only the rows f1 <= a / 2, which contain one bin of every pair
X[f], X[n - f]: a real transform costs half of a complex one. The inverse is the forward transform with real and
imaginary part exchanged, since swap(z) = i conj(z).

A matrix has at most _LIMIT points a side (twice that with both parts). A length with a larger prime factor is computed
as a circular convolution with a chirp by four-step transforms (Bluestein). O(n sum of factors) for each signal. The
graph depends on shapes only: reshapes, transposes, concatenations, flips, products, all static.

Bailey, "FFTs in external or hierarchical memory", 1990; Bluestein, "A linear filtering approach to the computation of
the discrete Fourier transform", 1970.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from spectral_core.backends.base import fast_length

Pair: TypeAlias = tuple[Tensor, Tensor]
_Array: TypeAlias = npt.NDArray[np.float64]

_BEST = 64
"""Points of one product: with more, the rounding error would exceed twice that of torch.fft. With real and imaginary
parts the matrix is 128 x 128, the size of a TPU's matrix unit."""
_LIMIT = 512
"""The most points of one product, for prime lengths, which have no factors."""
_KEPT = 256
"""The most cached tables; one more clears the cache."""


def rfft(x: Tensor, n: int) -> Pair:
    """Bins 0 to n // 2 of x (..., L), cropped or zero-padded to n points, unnormalised: twice (..., n // 2 + 1)."""
    x = x[..., :n]
    length, bins = x.shape[-1], n // 2 + 1
    a = factor(n)
    b, half = n // a, a // 2 + 1
    if b == 1:
        return _halves(_product(x, _table(_analysis, (n,), x)[:length]))
    rows = -(-length // b)  # the others are padding
    columns = F.pad(x, (0, rows * b - length)).unflatten(-1, (rows, b)).mT
    real, imag = _halves(_product(columns, _table(_analysis, (a,), x)[:rows]))
    real, imag = _turn(real, imag, _table(_twiddles, (n, b, half), x))
    real, imag = _fft(real.mT, imag.mT)
    # Bin f1 + a f2 is at (f1, f2) of (half, b). One with f1 >= half is the conjugate of that at (a - f1, b - 1 - f2).
    needed = (bins - 1) // a + 1
    ordered = []
    for part, sign in ((real.mT, 1), (imag.mT, -1)):
        head = part[..., :needed, :]
        if a > half:
            head = torch.cat([head, sign * part[..., b - needed :, 1 : a - half + 1].flip(-2, -1)], -1)
        ordered.append(head.flatten(-2)[..., :bins])
    return ordered[0], ordered[1]


def irfft(real: Tensor, imag: Tensor, n: int) -> Tensor:
    """The inverse of :func:`rfft`, scaled by 1 / n: (..., n // 2 + 1) twice -> (..., n).

    The matrix of the last product is zero for imaginary parts at DC and Nyquist.
    """
    a = factor(n)
    b, half = n // a, a // 2 + 1
    if b > 1:
        mirrored = slice(1, (n + 1) // 2)
        real = torch.cat([real, real[..., mirrored].flip(-1)], -1).unflatten(-1, (b, a))[..., :half].mT
        imag = torch.cat([imag, -imag[..., mirrored].flip(-1)], -1).unflatten(-1, (b, a))[..., :half].mT
        imag, real = _fft(imag, real)
        imag, real = _turn(imag.mT, real.mT, _table(_twiddles, (n, b, half), real))
    x = _product(torch.cat([real, imag], -1), _table(_synthesis, (a, n), real))
    return x if b == 1 else x.mT.flatten(-2)


def _fft(real: Tensor, imag: Tensor) -> Pair:
    """The complex transform over the last axis."""
    n = real.shape[-1]
    a = factor(n)
    b = n // a
    if a == 1:
        return _bluestein(real, imag)
    if b > 1:
        real, imag = (part.unflatten(-1, (a, b)).mT for part in (real, imag))
    real, imag = _halves(_product(torch.cat([real, imag], -1), _table(_complex, (a,), real)))
    if b > 1:
        real, imag = _turn(real, imag, _table(_twiddles, (n, b, a), real))
        real, imag = (part.mT.flatten(-2) for part in _fft(real.mT, imag.mT))
    return real, imag


def _bluestein(real: Tensor, imag: Tensor) -> Pair:
    """X[f] = c[f] sum_t (x[t] c[t]) conj(c)[f - t] with the chirp c[t] = e^(-pi i t^2 / n).

    For 2 t f = t^2 + f^2 - (f - t)^2.
    """
    n = real.shape[-1]
    points = fast_length(2 * n - 1)
    chirp = _table(_chirp, (n,), real)
    real, imag = _turn(real, imag, chirp)
    real, imag = _fft(F.pad(real, (0, points - n)), F.pad(imag, (0, points - n)))
    real, imag = _turn(real, imag, _table(_chirp_response, (n, points), real))
    imag, real = _fft(imag, real)
    return _turn(real[..., :n], imag[..., :n], chirp)


def _product(x: Tensor, table: Tensor) -> Tensor:
    """The product x @ table of two matrices, whatever the leading axes of x."""
    y = x.reshape(-1, x.shape[-1]) @ table
    return y.reshape(*x.shape[:-1], y.shape[-1])


def _halves(x: Tensor) -> Pair:
    real, imag = x.chunk(2, -1)
    return real, imag


def _turn(real: Tensor, imag: Tensor, by: Tensor) -> Pair:
    """The complex product with by (2, ...), its real and imaginary part."""
    cos, sin = by[0], by[1]
    return real * cos - imag * sin, real * sin + imag * cos


def factor(n: int) -> int:
    """The factor a of n = a b that is transformed first: n itself for a single product, 1 for Bluestein's algorithm.

    The divisor of n up to _LIMIT that is nearest to factors of equal size, for as few products as _BEST allows.
    """
    if n not in _FACTORS:
        products = max(1, math.ceil(math.log(n) / math.log(_BEST) - 1e-9))
        even = math.log(n) / products
        found = [d for d in range(2, min(n, _LIMIT) + 1) if n % d == 0]
        _FACTORS[n] = n if n <= _BEST else min(found, key=lambda d: abs(math.log(d) - even), default=1)
    return _FACTORS[n]


def _table(make: Callable[..., _Array], sizes: tuple[int, ...], like: Tensor) -> Tensor:
    """The constant make(*sizes), in the dtype and on the device of ``like``."""
    table: Tensor = getattr(_TABLES, _keep(make, sizes, like.dtype, like.device))
    return table


def _keep(make: Callable[..., _Array], sizes: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> str:
    """The name of a constant in _TABLES, which is computed if it is missing."""
    name = re.sub(r"\W+", "_", f"{make.__name__} {sizes} {dtype} {device}")
    kept = vars(_TABLES)
    if type(kept.get(name)) is Tensor:  # not a placeholder of an export
        return name
    if len(kept) >= _KEPT:
        kept.clear()
    array = make(*sizes).astype(np.float64 if dtype == torch.float64 else np.float32)
    with torch.inference_mode(False):  # training must be able to use the table too
        kept[name] = torch.from_numpy(array).to(device)
    return name


class _Tables:
    """Constants as attributes: a trace finds attributes that were added while it ran."""


_FACTORS: dict[int, int] = {}
_TABLES = _Tables()
# What torch.compiler.assume_constant_result sets, without importing the compiler: a trace calls these functions and
# stores their results as constants.
factor._dynamo_marked_constant = True  # type: ignore[attr-defined]
_keep._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _analysis(a: int) -> _Array:
    """Real a points to bins 0 to a // 2: (a, 2 half), real parts then imaginary parts."""
    cos, sin = _waves(a, a, a // 2 + 1)
    return np.concatenate([cos, -sin], 1)


def _synthesis(a: int, n: int) -> _Array:
    """Real and imaginary parts of bins 0 to a // 2 to real a points, over n: (2 half, a)."""
    cos, sin = _waves(a, a // 2 + 1, a)
    weight = np.full((a // 2 + 1, 1), 2 / n)  # a bin and its conjugate
    weight[0] = 1 / n
    if a % 2 == 0:
        weight[-1] = 1 / n
    return np.concatenate([weight * cos, -weight * sin], 0)


def _complex(a: int) -> _Array:
    """Real and imaginary parts of a points to those of a bins: (2a, 2a)."""
    cos, sin = _waves(a, a, a)
    return np.block([[cos, -sin], [sin, cos]])


def _twiddles(n: int, rows: int, columns: int) -> _Array:
    """w_n^(row column): (2, rows, columns)."""
    cos, sin = _waves(n, rows, columns)
    return np.stack([cos, -sin])


def _chirp(n: int) -> _Array:
    """e^(-pi i t^2 / n): (2, n)."""
    angle = np.pi / n * (np.arange(n) ** 2 % (2 * n))
    return np.stack([np.cos(angle), -np.sin(angle)])


def _chirp_response(n: int, points: int) -> _Array:
    """The transform of e^(pi i t^2 / n), |t| < n, around a circle of that many points, over points: (2, points)."""
    real, imag = _chirp(n)
    around = np.zeros(points, np.complex128)
    around[:n] = real - 1j * imag
    around[points - n + 1 :] = around[n - 1 : 0 : -1]
    response = np.fft.fft(around) / points
    return np.stack([response.real, response.imag])


def _waves(n: int, rows: int, columns: int) -> tuple[_Array, _Array]:
    """The cosine and sine of 2 pi r c / n; the product r c is reduced modulo n first, exactly."""
    turns = np.outer(np.arange(rows), np.arange(columns)) % n
    angle = turns * (2 * np.pi / n)
    sine = np.sin(angle)
    sine[2 * turns == n] = 0.0  # sin(pi), which is not zero in floating point
    return np.cos(angle), sine
