"""Fixed spectral filters: the leading eigenvectors of a Hankel matrix, combined by learned weights per channel."""

from __future__ import annotations

import math
from functools import lru_cache, partial
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from spectral_core import ConfigError
from spectral_core.config import Length, Width
from spectral_layers.constant import Constant
from spectral_layers.context import FilterContext
from spectral_layers.filters.base import Filter, FilterConfig

_MOST_LAGS = 1 << 20
# Spacing of the quadrature nodes in log x: the error falls as exp(-pi^2 / step) and is below rounding here.
_STEP = 0.15
# Smallest eigenvalue relative to the largest: in float64, smaller ones have no eigenvectors accurate to float32.
_RESOLVED = 1e-18
# Rows of V computed at once; also a length at which the largest eigenvalue has converged.
_ROWS = 4096


class HankelConfig(FilterConfig):
    """Fixed eigenvectors of a Hankel matrix, mixed per channel."""

    type: Literal["hankel"] = "hankel"
    vectors: Width = 24
    """Eigenvectors, each used with plain and with alternating signs; fewer if fewer can be computed (16 lags: 14)."""
    length: Annotated[Length, Field(le=_MOST_LAGS)] | None = None
    """Lags, and the longest sequence; null takes the model's max_seq_len."""


class Hankel(Filter[HankelConfig]):
    """kernel[d, t] = sum_k (a[d,k] + (-1)^t b[d,k]) sigma_k^(1/4) phi_k[t].

    sigma_k, phi_k: the largest eigenvalues of the Hankel matrix of ``length`` lags and their eigenvectors
    (:func:`hankel_eigenvectors`), fixed; a and b are learned. The phi_k are the principal components of the decays
    (1 - r) r^t with r uniform in [0, 1]: the mean squared distance of decays from the span of the first K is
    sum_{k>K} sigma_k, and sigma_k falls exponentially in k / log(length). Alternating signs do the same for r in
    [-1, 0]. So the kernel is linear in 2 K parameters per channel, and approximates decays of all time constants.

    Kernels are initialised to unit energy on average. O(D K L); the vectors are computed once per process and length,
    and are not in checkpoints. Defined for ``length`` lags, and so for sequences of ``length`` tokens. Decoding: exact
    semi-relaxed convolution.

    Hazan, Singh & Zhang, "Learning linear dynamical systems via spectral filtering", 2017; Agarwal, Suo, Chen & Hazan,
    "Spectral state space models", 2023.
    """

    def setup(self, config: HankelConfig, context: FilterContext) -> None:
        length, vectors = config.length or context.max_seq_len, config.vectors
        if length is None:
            raise ConfigError(
                "the filter 'hankel' has eigenvectors of one length: set its length, or the model's max_seq_len."
            )
        if length > _MOST_LAGS:
            raise ConfigError(
                f"the filter 'hankel' computes eigenvectors of at most {_MOST_LAGS:,} lags; got {length:,}. Set its "
                "length or the model's max_seq_len lower, or use another filter."
            )
        self.length_limit = self.support = self.length = length
        self.basis = Constant(partial(_basis, length, vectors))
        self.coefficient = nn.Parameter(torch.randn(context.channels, 2, _count(length, vectors)))
        self.register_load_state_dict_post_hook(_compute_basis)  # type: ignore[no-untyped-call]
        if not self.coefficient.is_meta:
            _compute_basis(self)
            with torch.no_grad():
                self.coefficient.div_(math.sqrt(2 * np.sqrt(hankel_eigenvectors(length, vectors)[0]).sum()))

    def kernel(self, length: int) -> Tensor:
        basis = self.basis.like(self.coefficient)[:, :length]
        plain, alternating = self.coefficient.unbind(1)
        sign = 1 - 2 * (torch.arange(basis.shape[-1], device=basis.device) % 2)
        # Outside autocast, which would round the tail.
        with torch.autocast(basis.device.type, enabled=False):
            taps = plain @ basis + (alternating @ basis) * sign
        return F.pad(taps, (0, length - basis.shape[-1]))


def _compute_basis(part: Hankel, *_: object) -> None:
    """Compute the basis before the first call, since torch.compile cannot trace the computation."""
    if not part.coefficient.is_meta:
        part.basis.like(part.coefficient)


def _basis(length: int, vectors: int) -> Tensor:
    """(k, length): sigma_k^(1/4) phi_k."""
    eigenvalues, eigenvectors = hankel_eigenvectors(length, vectors)
    return torch.from_numpy(np.ascontiguousarray((eigenvectors * eigenvalues**0.25).T))


def _count(length: int, vectors: int) -> int:
    """Number of eigenvectors for a length, at most ``vectors``.

    Eigenvalues grow with the length (interlacing of leading blocks), and the largest has converged to rounding at 4,096
    lags. So eigenvectors that exist there exist at every greater length, where none need be computed to count them.
    """
    if length > _ROWS and vectors < len(hankel_eigenvectors(_ROWS, _ROWS)[0]):
        return vectors
    return len(hankel_eigenvectors(length, vectors)[0])


@lru_cache(maxsize=16)
def hankel_eigenvectors(length: int, count: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The largest eigenvalues of Z[i, j] = 2 / ((i+j)^3 - (i+j)), i, j = 1 ... length, and eigenvectors as columns.

    Returns (k,) and (length, k) in float64, read-only. k is ``count``, or the number of eigenvalues above 1e-18 of the
    largest if that is less: 14 for 16 lags, 27 for 512, 37 for 8,192. Z is totally positive, so its eigenvalues are
    simple and no eigenvector starts with zero; signs are chosen so that first entries are positive, which makes the
    result unique.

    Z is never formed. It is the Gram matrix of moments, Z[i, j] = integral over x > 0 of e^(-x (i+j-1)) (1 - e^-x)^2,
    and with x = e^s the trapezoidal rule converges exponentially: Z = V V^T with O(log(length)) columns, and
    eigenvectors of Z are left singular vectors of V. The singular values are square roots of the eigenvalues, so
    vectors are accurate down to sigma_k = 1e-18 sigma_1; from Z itself only to 1e-15. O(length log^2 length).
    """
    nodes = np.exp(np.arange(math.log(1e-5 / length), math.log(40.0), _STEP))
    weights = np.sqrt(_STEP * nodes) * -np.expm1(-nodes)

    def factor(begin: int) -> np.ndarray[Any, Any]:
        lags = np.arange(begin, min(begin + _ROWS, length)) + 0.5
        return np.exp(-np.outer(lags, nodes)) * weights

    # V = Q R and R = U S W^T, so the eigenvectors are V W / S. Needs no Q, and V only in blocks of rows.
    begins = range(0, length, _ROWS)
    triangle = np.linalg.qr(np.concatenate([np.linalg.qr(factor(begin), mode="r") for begin in begins]), mode="r")
    _, values, right = np.linalg.svd(triangle, full_matrices=False)
    resolved = int((values[:length] ** 2 > _RESOLVED * values[0] ** 2).sum())
    kept = min(count, resolved)
    turn = right[:kept].T / values[:kept]
    vectors = np.concatenate([factor(begin) @ turn for begin in begins])
    vectors *= np.sign(vectors[0])
    eigenvalues = values[:kept] ** 2
    for array in (eigenvalues, vectors):
        array.setflags(write=False)
    return eigenvalues, vectors
