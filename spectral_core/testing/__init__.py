"""The conformance kit for FFT backends, for us and for plugins' authors. Needs no test framework."""

from spectral_core.testing.backends import BACKEND_CHECKS, Check
from spectral_core.testing.numerics import assert_as_accurate, assert_close, relative_error
from spectral_core.testing.oracle import oracle_convolve, oracle_modulate

__all__ = [
    "BACKEND_CHECKS",
    "Check",
    "assert_as_accurate",
    "assert_close",
    "oracle_convolve",
    "oracle_modulate",
    "relative_error",
]
