"""What a part is told about the model it is built into.

Configs say what the user chose; contexts say where the part stands. New fields may be added without breaking a
plugin, which is why ``build`` takes one object and not a growing list of arguments.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

from spectral_core import FFTBackend, fft_backend


@dataclass(frozen=True, slots=True)
class LayerContext:
    """For mixers, feed-forwards, positions, front ends and fusions: x is (B, L, hidden_dim).

    causal: no output may depend on a later token. streams: names of all that a fusion may be given; None if unknown.
    feature_size: with which the front end's features begin, for positions that are added to them.
    """

    hidden_dim: int
    causal: bool
    fft: FFTBackend
    max_seq_len: int | None = None
    streams: tuple[str, ...] | None = None
    feature_size: float = 1.0


@dataclass(frozen=True, slots=True)
class FilterContext:
    """For filters: one kernel per channel.

    max_seq_len limits only filters with a free parameter per tap. fft: the model's, for kernels made of spectra.
    """

    channels: int
    max_seq_len: int | None = None
    fft: FFTBackend = field(default_factory=partial(fft_backend, "auto"))


@dataclass(frozen=True, slots=True)
class GateContext:
    """For gates and sparsities: channels come in heads of head_dim. The number of bins follows the span."""

    heads: int
    head_dim: int
