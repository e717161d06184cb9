"""The Hankel filter's eigenvectors, against dense eigensolvers, extended precision and an FFT's residual."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
import torch

from spectral_core import ConfigError
from spectral_layers import FilterContext
from spectral_layers.filters import hankel
from spectral_layers.filters.hankel import HankelConfig, hankel_eigenvectors


def entries(length: int) -> np.ndarray:
    """2 / (n^3 - n) for n = i + j = 2 ... 2 length."""
    n = np.arange(2, 2 * length + 1, dtype=np.float64)
    return 2 / (n**3 - n)


def test_eigenvectors_are_those_of_the_dense_matrix() -> None:
    index = np.arange(512)
    values, vectors = np.linalg.eigh(entries(512)[index[:, None] + index])
    found_values, found = hankel_eigenvectors(512, 24)
    assert found.shape == (512, 24)
    # A dense solver in float64 is right to 1e-16 of the largest eigenvalue; from the tenth on, this is the better one.
    for k in range(10):
        assert found_values[k] == pytest.approx(values[-1 - k], rel=1e-9)
        assert abs(found[:, k] @ vectors[:, -1 - k]) == pytest.approx(1, abs=1e-12)
        assert found[0, k] > 0


def test_small_eigenvalues_have_their_vectors_too() -> None:
    # In 50 digits: eigenvalues down to 1e-17 of the largest, where float64 solvers of the matrix give noise.
    length = 24
    with mpmath.workdps(50):
        cells = [[mpmath.mpf(2) / ((i + j) ** 3 - (i + j)) for j in range(1, length + 1)] for i in range(1, length + 1)]
        exact_values, exact = mpmath.eigsy(mpmath.matrix(cells))
    values = np.array([float(value) for value in exact_values])[::-1]
    vectors = np.array(exact.tolist(), dtype=np.float64)[:, ::-1]
    found_values, found = hankel_eigenvectors(length, length)
    kept = len(found_values)
    assert values[kept - 1] < 1e-16 * values[0], "the resolved ones reach below float64's epsilon"
    assert values[kept] < 1e-18 * values[0], "all that are resolved are returned"
    np.testing.assert_allclose(found_values, values[:kept], rtol=1e-6)
    np.testing.assert_allclose(found, (vectors * np.sign(vectors[0]))[:, :kept], atol=1e-6)


def test_long_eigenvectors_solve_their_equation() -> None:
    length = 1 << 14
    values, vectors = hankel_eigenvectors(length, 24)
    # Z v by FFT: a Hankel matrix times v is a convolution with v reversed.
    spectrum = np.fft.rfft(entries(length), 4 * length)[:, None] * np.fft.rfft(vectors[::-1], 4 * length, axis=0)
    product = np.fft.irfft(spectrum, 4 * length, axis=0)[length - 1 : 2 * length - 1]
    assert np.abs(product - vectors * values)[:, :8].max() < 1e-14
    assert np.abs(product - vectors * values).max() < 1e-11
    assert np.abs(vectors.T @ vectors - np.eye(24)).max() < 1e-10
    assert (values[:-1] > values[1:]).all()


def test_the_vectors_span_exponential_decays() -> None:
    # The mean over r of the squared distance is the sum of the eigenvalues left out; r by Gauss-Legendre quadrature.
    values, vectors = hankel_eigenvectors(256, 24)
    nodes, weights = np.polynomial.legendre.leggauss(400)
    r = (nodes + 1) / 2
    decays = (1 - r) * r ** np.arange(256)[:, None]
    for count in (1, 4, 8):
        kept = vectors[:, :count]
        distance = ((decays - kept @ (kept.T @ decays)) ** 2).sum(0) @ weights / 2
        assert distance == pytest.approx(values[count:].sum(), rel=1e-6)


@pytest.mark.parametrize(("length", "count"), [(1, 1), (2, 2), (16, 14), (512, 24)])
def test_no_more_vectors_than_are_resolved(length: int, count: int) -> None:
    made = HankelConfig().build(FilterContext(3, length))
    assert made.coefficient.shape == (3, 2, count)
    assert made.length_limit == length


def test_the_kernel_is_its_sum_of_vectors() -> None:
    made = HankelConfig(vectors=5, length=40).build(FilterContext(3, 100)).double()
    values, vectors = hankel_eigenvectors(40, 5)
    plain, alternating = made.coefficient.detach().numpy().transpose(1, 0, 2)
    expected = np.empty((3, 40))
    for t in range(40):
        expected[:, t] = (plain + (-1) ** t * alternating) @ (values**0.25 * vectors[t])
    np.testing.assert_allclose(made.kernel(40).detach().numpy(), expected, atol=1e-6)
    assert made.state_dict().keys() == {"coefficient"}


def test_kernels_begin_with_unit_energy_whatever_their_length() -> None:
    for length in (64, 2048):
        energy = HankelConfig().build(FilterContext(2000, length)).kernel(length).square().sum(-1).mean().item()
        assert energy == pytest.approx(1, abs=0.15)


def test_eigenvectors_need_a_length() -> None:
    with pytest.raises(ConfigError, match="'hankel' has eigenvectors of one length: set its length, or the model's"):
        HankelConfig().build(FilterContext(4))


def test_shared_eigenvectors_cannot_be_written() -> None:
    with pytest.raises(ValueError, match="read-only"):
        hankel_eigenvectors(32, 4)[1][0] = 0.0
    made = HankelConfig(vectors=4, length=32).build(FilterContext(1))
    with torch.no_grad():
        made.basis.values.zero_()
    assert HankelConfig(vectors=4, length=32).build(FilterContext(1)).basis.values.any()


@pytest.mark.parametrize("length", [40, 4096, 4097, 9000])
@pytest.mark.parametrize("vectors", [5, 24, 33, 34, 60])
def test_how_many_there_are_is_known_before_they_are(length: int, vectors: int) -> None:
    assert hankel._count(length, vectors) == len(hankel_eigenvectors(length, vectors)[0])


def test_a_filter_without_memory_computes_no_long_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    compute = hankel.hankel_eigenvectors

    def noted(length: int, count: int) -> object:
        asked.append(length)
        return compute(length, count)

    monkeypatch.setattr(hankel, "hankel_eigenvectors", noted)
    with torch.device("meta"):
        hankel.Hankel(channels=4, length=1 << 20)
    assert asked == [4096]
