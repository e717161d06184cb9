"""Spectral operators behind swappable FFT backends, and the registry, plugin host and configs of the framework."""

import spectral_core.discovery  # noqa: F401  # before torch and pydantic, which it keeps importable

# isort: split

from spectral_core.backends.base import (
    FFTBackend,
    FFTBackendConfig,
    Mode,
    PreparedKernel,
    Request,
    Spectrum,
    Support,
    transform_dtype,
)
from spectral_core.backends.selection import FFT_BACKENDS, fft_backend, list_fft_backends
from spectral_core.convolution import convolve, prepare_kernel
from spectral_core.errors import (
    ConfigError,
    DuplicateComponentError,
    PluginError,
    SpectralError,
    StateError,
    UnknownComponentError,
    UnsupportedInputError,
)
from spectral_core.modulation import modulate
from spectral_core.plugins import hookimpl
from spectral_core.version import __version__

__all__ = [
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
]
