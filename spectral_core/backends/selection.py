"""The registry of FFT backends, and how a name becomes a backend."""

from __future__ import annotations

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
    if options:
        return _build(FFT_BACKENDS.get(name), options)
    _share(name)
    return _SHARED[name][1]


_SHARED: dict[str, tuple[Entry[FFTBackendConfig], FFTBackend]] = {}
"""One instance of each backend without options, so that plans are computed and logged once."""


def _share(name: str) -> None:
    entry = FFT_BACKENDS.get(name)
    if name not in _SHARED or _SHARED[name][0] is not entry:
        _SHARED[name] = entry, _build(entry, {})


# What torch.compiler.assume_constant_result sets, without importing the compiler: a trace calls the function instead of
# tracing it, so that a name causes no graph break.
_share._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _build(entry: Entry[FFTBackendConfig], options: dict[str, Any]) -> FFTBackend:
    try:
        config = entry.load().model_validate({"type": entry.name, **options})
    except ValidationError as error:
        raise ConfigError(f"fft backend {entry.name!r}: {render(error)}") from None
    return config.build()


def list_fft_backends(pattern: str = "*") -> list[str]:
    """Names of the registered backends that match a shell-style pattern."""
    return FFT_BACKENDS.names(pattern)
