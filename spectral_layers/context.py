"""Contexts: the properties of the surrounding model that a part needs when it is built.

A config holds the user's options, a context the sizes and settings of the model. ``build`` takes one context object, so
that new fields do not break plugins. A part that is built on its own takes the same values as keyword arguments, which
the ``keywords`` class of each context declares.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any, ClassVar

from pydantic import PlainValidator

from spectral_core import FFT_BACKENDS, ConfigError, FFTBackend, fft_backend
from spectral_core.config import Config, Length, OneOf, Width


class Keywords(Config):
    """Base of the keyword arguments that replace a context for a part built on its own."""

    @abstractmethod
    def context(self) -> Any:
        """The context with these values."""


class Context:
    """Base of contexts."""

    __slots__ = ()
    keywords: ClassVar[type[Keywords]]


def _backend(value: object) -> FFTBackend:
    if isinstance(value, FFTBackend):
        return value
    config: Any = OneOf(FFT_BACKENDS).resolve(value)
    return fft_backend(value) if isinstance(value, str) else config.build()  # a name always gives the same instance


class LayerKeywords(Keywords):
    """Keywords of mixers, feed-forwards, positions, front ends and fusions."""

    dim: Width
    """Channels D of (B, L, D)."""
    causal: bool = True
    """Whether no output may depend on a later token."""
    fft: Annotated[Any, PlainValidator(_backend)] = "auto"
    """The backend: a name, a mapping with ``type`` and options, or an FFTBackend."""
    max_seq_len: Length | None = None
    """The longest sequence, for parts with a parameter per position."""

    def context(self) -> LayerContext:
        return LayerContext(self.dim, self.causal, self.fft, self.max_seq_len)


class FilterKeywords(Keywords):
    """Keywords of filters."""

    channels: Width
    """Channels D: the kernel is (D, taps)."""
    max_seq_len: Length | None = None
    """The longest sequence, for filters with a parameter per tap."""
    fft: Annotated[Any, PlainValidator(_backend)] = "auto"
    """The backend: a name, a mapping with ``type`` and options, or an FFTBackend."""

    def context(self) -> FilterContext:
        return FilterContext(self.channels, self.max_seq_len, self.fft)


class GateKeywords(Keywords):
    """Keywords of gates and sparsities."""

    heads: Width
    """Heads H of (B, H, C, F)."""
    head_dim: Width
    """Channels C of each head."""

    def context(self) -> GateContext:
        return GateContext(self.heads, self.head_dim)


@dataclass(frozen=True, slots=True)
class LayerContext(Context):
    """Context of mixers, feed-forwards, positions, front ends and fusions: x is (B, L, hidden_dim).

    causal: whether no output may depend on a later token. streams: names of a fusion's streams; None if unknown.
    feature_size: initial root mean square of the front end's output, to which positions are added.
    """

    keywords = LayerKeywords
    hidden_dim: int
    causal: bool
    fft: FFTBackend
    max_seq_len: int | None = None
    streams: tuple[str, ...] | None = None
    feature_size: float = 1.0

    def heads(self, head_dim: int) -> int:
        """Number of heads of width ``head_dim``. Raises ConfigError unless it divides hidden_dim."""
        if self.hidden_dim % head_dim:
            raise ConfigError(f"head_dim {head_dim} does not divide hidden_dim {self.hidden_dim}.")
        return self.hidden_dim // head_dim

    def of_filter(self, scale: int = 1) -> FilterContext:
        """Context of a filter inside the part, with one tap per ``scale`` tokens."""
        longest = None if self.max_seq_len is None else max(1, self.max_seq_len // scale)
        return FilterContext(self.hidden_dim, longest, self.fft)


@dataclass(frozen=True, slots=True)
class FilterContext(Context):
    """Context of filters, which have one kernel per channel.

    max_seq_len: read by filters with a parameter per tap. fft: the model's backend, for kernels defined by spectra.
    """

    keywords = FilterKeywords
    channels: int
    max_seq_len: int | None = None
    fft: FFTBackend = field(default_factory=partial(fft_backend, "auto"))


@dataclass(frozen=True, slots=True)
class GateContext(Context):
    """Context of gates and sparsities. There is no number of bins: it depends on the span."""

    keywords = GateKeywords
    heads: int
    head_dim: int
