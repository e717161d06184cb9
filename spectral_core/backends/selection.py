"""The registry of FFT backends, and how a name becomes a backend."""

from __future__ import annotations

import functools
from typing import Any

from pydantic import ValidationError

from spectral_core import hookspecs
from spectral_core.backends import builtin
from spectral_core.backends.base import FFTBackend, FFTBackendConfig
from spectral_core.config import render
from spectral_core.errors import ConfigError
from spectral_core.plugins import HOST
from spectral_core.registry import Entry, Registry
from spectral_core.version import __version__

FFT_BACKENDS: Registry[FFTBackendConfig] = HOST.family(
    "spectral_register_fft_backends", specs=hookspecs, builtin=builtin, version=__version__
).registry("fft", FFTBackendConfig, label="backend (fft)")


def fft_backend(name: str, **options: Any) -> FFTBackend:
    """The backend of that name with its options, as a config would build it.

    ``fft_backend("hierarchical", block_bytes=1 << 20)``. Raises UnknownComponentError with the known names, or
    ConfigError for an option the backend does not have.
    """
    entry = FFT_BACKENDS.get(name)
    return _build(entry, options) if options else _default(entry)


@functools.cache
def _default(entry: Entry[FFTBackendConfig]) -> FFTBackend:
    """One instance for all who name a backend without options, so that plans are made and logged once."""
    return _build(entry, {})


def _build(entry: Entry[FFTBackendConfig], options: dict[str, Any]) -> FFTBackend:
    try:
        config = entry.load().model_validate({"type": entry.name, **options})
    except ValidationError as error:
        raise ConfigError(f"fft backend {entry.name!r}: {render(error)}") from None
    return config.build()


def list_fft_backends(pattern: str = "*") -> list[str]:
    """Names of the registered backends that match a shell-style pattern."""
    return FFT_BACKENDS.names(pattern)
