"""A check tests one promise of a part: a function of a case, and a condition that says which cases it applies to."""

from __future__ import annotations

import functools
from collections import ChainMap
from collections.abc import Callable, Iterable, Mapping
from types import ModuleType
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from spectral_core.testing import assert_close
from spectral_layers.rows import Rows

Case = TypeVar("Case", contravariant=True)

ROUNDING = 1e-9
"""Allowed in float64, relative to the change of the outputs that may change."""


class Check(Generic[Case]):
    """Called with a case, it raises AssertionError when the part breaks the promise: what was expected, what came.

    Raises ValueError for a case it does not apply to; ask :meth:`applies` first, so that no skipped check passes.
    """

    __name__: str

    def __init__(self, function: Callable[[Case], None], when: Callable[[Case], bool] | None) -> None:
        functools.update_wrapper(self, function)
        self._function = function
        self._when = when

    def applies(self, case: Case) -> bool:
        """Whether the part makes this promise."""
        return self._when is None or self._when(case)

    def __call__(self, case: Case) -> None:
        if not self.applies(case):
            raise ValueError(f"{self.__name__} is not for {case}; ask {self.__name__}.applies(case) first.")
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            self._function(case)

    def __repr__(self) -> str:
        return self.__name__


def only_for(when: Callable[[Any], bool]) -> Callable[[Callable[[Case], None]], Check[Case]]:
    """Decorator: a check of the cases for which ``when`` is true."""
    return lambda function: Check(function, when)


def for_all(function: Callable[[Case], None]) -> Check[Case]:
    """Decorator: a check of all cases."""
    return Check(function, None)


def checks_in(*modules: ModuleType) -> tuple[Check[Any], ...]:
    """All checks that these modules define, in their order."""
    return tuple(
        value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, Check) and value.__module__ == module.__name__
    )


def pairs(checks: Iterable[Check[Case]], cases: Iterable[Case]) -> list[tuple[Check[Case], Case]]:
    """Each case with each check that applies to it."""
    given = tuple(checks)
    return [(check, case) for case in cases for check in given if check.applies(case)]


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Standard normal values: of size 1, so that a relative error is meaningful."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def ragged(lengths: list[int]) -> Rows:
    return Rows(torch.tensor(lengths))


def require_like(what: str, y: Tensor, x: Tensor) -> None:
    """Raise AssertionError unless y has the shape and dtype of x."""
    if y.shape != x.shape or y.dtype != x.dtype:
        raise AssertionError(
            f"{what}: {tuple(x.shape)} {x.dtype} must come back as such; got {tuple(y.shape)} {y.dtype}."
        )


def require_scalars(what: str, *named: Mapping[str, Tensor]) -> None:
    """Raise AssertionError unless all losses and metrics are finite scalars."""
    for name, scalar in ChainMap(*map(dict, named)).items():
        if scalar.dim() != 0 or not scalar.isfinite():
            raise AssertionError(f"{what}: {name!r} must be a finite scalar; got {tuple(scalar.shape)}.")


def require_causal(what: str, changed: Tensor, y: Tensor, token: int) -> None:
    """Raise AssertionError if new inputs from ``token`` on moved earlier outputs. what: the part, and what is new.

    In float64 an FFT's rounding moves them by 1e-15 of the change that follows, a leak by far more than 1e-9.
    """
    answer = (changed - y)[:, token:].abs().max().item()
    if not answer > 1e-6 * y.abs().max().item():
        raise AssertionError(f"{what} from {token} on change nothing after it, so the check of causality is void.")
    leak = relative_change(changed[:, :token], y[:, :token], answer)
    if not leak <= ROUNDING:
        first = int(((changed - y)[:, :token].abs().amax((0, 2)) > ROUNDING * answer).nonzero()[0])
        raise AssertionError(
            f"{what} from {token} on move the output of token {first} already: the future is seen. Earlier outputs "
            f"move by up to {leak:.2g} of the change after; at most {ROUNDING:g} is rounding. Compute what shapes a "
            "token's output (gates, kernels, norms, statistics) from tokens up to it."
        )


def require_autocast(what: str, call: Callable[[], Tensor], own: Tensor | float = 0.0) -> None:
    """Raise AssertionError unless outputs under bfloat16 autocast are within a tenth of those without.

    own: the part of the outputs that is not rounded, which is subtracted.
    """
    with torch.no_grad():
        exact = call()
        with torch.autocast("cpu", torch.bfloat16):
            rounded = call()
    assert_close(f"{what} under bfloat16 autocast", rounded.float() - own, exact - own, 0.1)


def require_error(
    error: type[Exception], what: str, call: Callable[..., object], *given: object, **named: object
) -> None:
    """Raise AssertionError unless the call raises that error."""
    try:
        call(*given, **named)
    except error:
        return
    except Exception as other:
        raise AssertionError(
            f"{what} must raise {error.__name__}; it raised {type(other).__name__}: {other}"
        ) from other
    raise AssertionError(f"{what} must raise {error.__name__}; it was accepted.")


def relative_change(after: Tensor, before: Tensor, scale: float) -> float:
    """Largest absolute difference over a scale; infinite when anything is not finite."""
    if after.numel() == 0:
        return 0.0
    change = (after - before).abs().max().item() / max(scale, torch.finfo(torch.float64).tiny)
    return change if change == change else float("inf")
