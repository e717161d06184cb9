"""What users may import from the core: a name more or less is a decision, not an accident."""

from __future__ import annotations

import types

import spectral_core
import spectral_core.testing
import spectral_kernels.operator

CORE = {
    "FFT_BACKENDS",
    "ConfigError",
    "DuplicateComponentError",
    "FFTBackend",
    "FFTBackendConfig",
    "Mode",
    "PluginError",
    "PreparedKernel",
    "Request",
    "SpectralError",
    "Spectrum",
    "StateError",
    "Support",
    "UnknownComponentError",
    "UnsupportedInputError",
    "__version__",
    "convolve",
    "fft_backend",
    "hookimpl",
    "list_fft_backends",
    "modulate",
    "prepare_kernel",
    "transform_dtype",
}
TESTING = {
    "BACKEND_CHECKS",
    "Check",
    "assert_as_accurate",
    "assert_close",
    "oracle_convolve",
    "oracle_modulate",
    "relative_error",
}


OPERATORS = {"differentiable_operator", "operator"}


def names_of(package: types.ModuleType) -> set[str]:
    """Names without an underscore that are not submodules."""
    members = vars(package).items()
    return {name for name, value in members if name[0] != "_" and not isinstance(value, types.ModuleType)}


def test_the_core_exports_exactly_this() -> None:
    assert set(spectral_core.__all__) == CORE
    assert names_of(spectral_core) | {"__version__"} == CORE


def test_the_kit_exports_exactly_this() -> None:
    assert set(spectral_core.testing.__all__) == TESTING
    assert names_of(spectral_core.testing) == TESTING


def test_the_helpers_for_operators_are_exactly_these() -> None:
    assert set(spectral_kernels.operator.__all__) == OPERATORS


def test_errors_of_users_are_value_errors() -> None:
    for error in ("ConfigError", "DuplicateComponentError", "StateError", "UnknownComponentError"):
        assert issubclass(getattr(spectral_core, error), ValueError)
    assert issubclass(spectral_core.UnsupportedInputError, ValueError)
