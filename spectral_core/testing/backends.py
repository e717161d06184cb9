"""The conformance kit for FFT backends: a function for each promise, each a few milliseconds.

The author of a plugin runs it on their backend::

    import pytest
    from spectral_core import fft_backend
    from spectral_core.testing import BACKEND_CHECKS

    @pytest.mark.parametrize("check", BACKEND_CHECKS, ids=lambda check: check.__name__)
    def test_conformance(check):
        check(fft_backend("acme/name"))
"""

from __future__ import annotations

from typing import Protocol

from spectral_core.backends.base import FFTBackend
from spectral_core.testing import convolutions, higher_order, transforms


class Check(Protocol):
    """Raises AssertionError when a backend breaks a promise: what was expected, what came."""

    __name__: str

    def __call__(self, backend: FFTBackend, /) -> None: ...


BACKEND_CHECKS: tuple[Check, ...] = tuple(
    value
    for module in (transforms, convolutions, higher_order)
    for name, value in vars(module).items()
    if name.startswith("check_")
)
"""Every promise of an FFT backend, in the order in which to mend them."""
