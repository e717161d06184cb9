"""How far a result is from the right one, measured so that nothing passes by being small or empty."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """||actual - expected|| / ||expected|| over all elements, in float64.

    An all-zero output has error 1; NaN and wrong shapes have an infinite error: none passes a bound below 1. If
    ``expected`` is zero, only zero is right.
    """
    if actual.shape != expected.shape:
        return math.inf
    wanted = expected.detach().to("cpu", torch.float64)
    distance = (actual.detach().to("cpu", torch.float64) - wanted).norm().item()
    if math.isnan(distance):
        return math.inf
    if distance == 0.0:
        return 0.0
    scale = wanted.norm().item()
    return distance / scale if scale > 0.0 else math.inf


def assert_close(what: str, actual: Tensor, expected: Tensor, bound: float) -> None:
    """Raise AssertionError, saying what and by how much, unless the relative error is within the bound."""
    if actual.shape != expected.shape:
        raise AssertionError(f"{what}: shape {tuple(actual.shape)}, expected {tuple(expected.shape)}.")
    error = relative_error(actual, expected)
    if not error <= bound:
        hint = " (1 is what an all-zero output would give)" if math.isclose(error, 1.0, rel_tol=1e-6) else ""
        raise AssertionError(f"{what}: relative error {error:.3g}{hint}, at most {bound:.3g} is allowed.")


def assert_as_accurate(what: str, actual: Tensor, plain: Tensor, exact: Tensor, floor: float) -> None:
    """Raise AssertionError unless ``actual`` is at most twice as far from ``exact`` as ``plain`` is, plus a floor.

    plain: the same computation by plain PyTorch in the same dtype, the standard for that dtype.
    """
    bound = 2 * relative_error(plain, exact) + floor
    assert_close(f"{what} (allowed: twice plain torch.fft's error + {floor:g})", actual, exact, bound)
