"""Mixers, filters, gates, sparsities, fusions, feed-forwards, positions, front ends, by name; causal if they say so."""

from spectral_layers.context import FilterContext, GateContext, LayerContext
from spectral_layers.feedforward.base import FeedForward, FeedForwardConfig, FeedForwardOutput
from spectral_layers.filters.base import Filter, FilterConfig, RecurrentFilter
from spectral_layers.frontends.base import FrontEnd, FrontEndConfig, FrontEndOutput
from spectral_layers.fusion.base import Fusion, FusionConfig, FusionOutput, Stream
from spectral_layers.gates.base import Gate, GateConfig, Modulation, SpectralView
from spectral_layers.kept import fixed_weights
from spectral_layers.mixers.base import Mixer, MixerConfig, MixerOutput
from spectral_layers.positions.base import Position, PositionConfig, Rotation
from spectral_layers.registries import FEEDFORWARDS, FILTERS, FRONTENDS, FUSIONS, GATES, MIXERS, POSITIONS, SPARSITIES
from spectral_layers.report import Report
from spectral_layers.rows import Rows
from spectral_layers.sparsity.base import Sparsity, SparsityConfig
from spectral_layers.state import State

__all__ = [
    "FEEDFORWARDS",
    "FILTERS",
    "FRONTENDS",
    "FUSIONS",
    "GATES",
    "MIXERS",
    "POSITIONS",
    "SPARSITIES",
    "FeedForward",
    "FeedForwardConfig",
    "FeedForwardOutput",
    "Filter",
    "FilterConfig",
    "FilterContext",
    "FrontEnd",
    "FrontEndConfig",
    "FrontEndOutput",
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
    "Position",
    "PositionConfig",
    "RecurrentFilter",
    "Report",
    "Rotation",
    "Rows",
    "Sparsity",
    "SparsityConfig",
    "SpectralView",
    "State",
    "Stream",
    "fixed_weights",
]
