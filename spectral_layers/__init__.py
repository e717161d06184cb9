"""Mixers, filters, gates, sparsities, fusions, feed-forwards, registered by name; strictly causal where they say so."""

from spectral_layers.context import FilterContext, GateContext, LayerContext
from spectral_layers.feedforward.base import FeedForward, FeedForwardConfig, FeedForwardOutput
from spectral_layers.filters.base import Filter, FilterConfig, RecurrentFilter
from spectral_layers.fusion.base import Fusion, FusionConfig, FusionOutput, Stream
from spectral_layers.gating.base import Gate, GateConfig, Modulation, SpectralView
from spectral_layers.mixing.base import Mixer, MixerConfig, MixerOutput
from spectral_layers.registries import FEEDFORWARDS, FILTERS, FUSIONS, GATES, MIXERS, SPARSITIES
from spectral_layers.rows import Rows
from spectral_layers.sparsity.base import Sparsity, SparsityConfig
from spectral_layers.state import State

__all__ = [
    "FEEDFORWARDS",
    "FILTERS",
    "FUSIONS",
    "GATES",
    "MIXERS",
    "SPARSITIES",
    "FeedForward",
    "FeedForwardConfig",
    "FeedForwardOutput",
    "Filter",
    "FilterConfig",
    "FilterContext",
    "Fusion",
    "FusionConfig",
    "FusionOutput",
    "Gate",
    "GateConfig",
    "GateContext",
    "LayerContext",
    "Mixer",
    "MixerConfig",
    "MixerOutput",
    "Modulation",
    "RecurrentFilter",
    "Rows",
    "Sparsity",
    "SparsityConfig",
    "SpectralView",
    "State",
    "Stream",
]
