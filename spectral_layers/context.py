"""What a part is told about the model it is built into.

Configs say what the user chose; contexts say where the part stands. New fields may be added without breaking a
plugin, which is why ``build`` takes one object and not a growing list of arguments. A part that stands alone is told
by keyword arguments, which the ``keywords`` of a context list.
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
    """Keyword arguments that say where a part stands which stands alone."""

    @abstractmethod
    def context(self) -> Any:
        """The context they describe."""


class Context:
    """Base of contexts."""

    __slots__ = ()
    keywords: ClassVar[type[Keywords]]


def _backend(given: object) -> FFTBackend:
    if isinstance(given, FFTBackend):
        return given
    config: Any = OneOf(FFT_BACKENDS).resolve(given)
    return fft_backend(given) if isinstance(given, str) else config.build()  # one instance for all who name it


class LayerKeywords(Keywords):
    """Of mixers, feed-forwards, positions, front ends and fusions."""

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
    """Of filters."""

    channels: Width
    """Channels D: the kernel is (D, taps)."""
    max_seq_len: Length | None = None
    """The longest sequence, for filters with a parameter per tap."""
    fft: Annotated[Any, PlainValidator(_backend)] = "auto"
    """The backend: a name, a mapping with ``type`` and options, or an FFTBackend."""

    def context(self) -> FilterContext:
        return FilterContext(self.channels, self.max_seq_len, self.fft)


class GateKeywords(Keywords):
    """Of gates and sparsities."""

    heads: Width
    """Heads H of (B, H, C, F)."""
    head_dim: Width
    """Channels C of each head."""

    def context(self) -> GateContext:
        return GateContext(self.heads, self.head_dim)


@dataclass(frozen=True, slots=True)
class LayerContext(Context):
    """For mixers, feed-forwards, positions, front ends and fusions: x is (B, L, hidden_dim).

    causal: no output may depend on a later token. streams: names of all that a fusion may be given; None if unknown.
    feature_size: with which the front end's features begin, for positions that are added to them.
    """

    keywords = LayerKeywords
    hidden_dim: int
    causal: bool
    fft: FFTBackend
    max_seq_len: int | None = None
    streams: tuple[str, ...] | None = None
    feature_size: float = 1.0

    def heads(self, head_dim: int) -> int:
        """How many heads of that width there are. Raises ConfigError unless it divides hidden_dim."""
        if self.hidden_dim % head_dim:
            raise ConfigError(f"head_dim {head_dim} does not divide hidden_dim {self.hidden_dim}.")
        return self.hidden_dim // head_dim

    def of_filter(self, scale: int = 1) -> FilterContext:
        """For a filter inside, with a tap for each ``scale`` tokens."""
        longest = None if self.max_seq_len is None else max(1, self.max_seq_len // scale)
        return FilterContext(self.hidden_dim, longest, self.fft)


@dataclass(frozen=True, slots=True)
class FilterContext(Context):
    """For filters: one kernel per channel.

    max_seq_len limits only filters with a free parameter per tap. fft: the model's, for kernels made of spectra.
    """

    keywords = FilterKeywords
    channels: int
    max_seq_len: int | None = None
    fft: FFTBackend = field(default_factory=partial(fft_backend, "auto"))


@dataclass(frozen=True, slots=True)
class GateContext(Context):
    """For gates and sparsities: channels come in heads of head_dim. The number of bins follows the span."""

    keywords = GateKeywords
    heads: int
    head_dim: int
