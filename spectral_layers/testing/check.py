"""What a check is: one promise of a part, a function of a case, with a word on which cases it is for."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

import torch
from torch import Tensor

from spectral_layers.rows import Rows

Case = TypeVar("Case", contravariant=True)


class Check(Generic[Case]):
    """Call it with a case: it raises AssertionError, saying what was expected and what came, when a promise is broken.

    Raises ValueError for a case it is not for; ask :meth:`applies` first, so that nothing passes by being skipped.
    """

    __name__: str

    def __init__(self, function: Callable[[Case], None], when: Callable[[Case], bool] | None) -> None:
        functools.update_wrapper(self, function)
        self._function = function
        self._when = when

    def applies(self, case: Case) -> bool:
        """Whether the promise is one the part makes."""
        return self._when is None or self._when(case)

    def __call__(self, case: Case) -> None:
        if not self.applies(case):
            raise ValueError(f"{self.__name__} is not for {case}; ask {self.__name__}.applies(case) first.")
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            self._function(case)

    def __repr__(self) -> str:
        return self.__name__


def only_for(when: Callable[[Case], bool]) -> Callable[[Callable[[Case], None]], Check[Case]]:
    """Make a check of a function, for the cases ``when`` is true of."""
    return lambda function: Check(function, when)


def for_all(function: Callable[[Case], None]) -> Check[Case]:
    """Make a check of a function, for all cases."""
    return Check(function, None)


def pairs(checks: Iterable[Check[Case]], cases: Iterable[Case]) -> list[tuple[Check[Case], Case]]:
    """Each case with each check that is for it."""
    given = tuple(checks)
    return [(check, case) for case in cases for check in given if check.applies(case)]


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Standard normal values: of size 1, so that a relative error means something."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def ragged(lengths: list[int]) -> Rows:
    return Rows(torch.tensor(lengths))


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
