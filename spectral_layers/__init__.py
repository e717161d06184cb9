"""Mixers, filters, gates, sparsities, fusions, feed-forwards, positions, front ends: ordinary modules, also by name.

``GatedConvolution(dim=256)(x).y``. The classes of parts are imported on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from spectral_layers.builtin import CLASSES
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
from spectral_layers.rows import Rows
from spectral_layers.sparsity.base import Sparsity, SparsityConfig
from spectral_layers.state import State

if TYPE_CHECKING:
    from spectral_layers.feedforward.mlp import MLP
    from spectral_layers.feedforward.moe import MoE
    from spectral_layers.feedforward.swiglu import SwiGLU
    from spectral_layers.filters.hankel import Hankel
    from spectral_layers.filters.implicit import Implicit
    from spectral_layers.filters.multiresolution import Multiresolution
    from spectral_layers.filters.partitioned import Partitioned
    from spectral_layers.filters.resonant import Resonant
    from spectral_layers.filters.spectrum import Spectrum
    from spectral_layers.frontends.mel import Mel
    from spectral_layers.frontends.patches import Patches
    from spectral_layers.frontends.tokens import Tokens
    from spectral_layers.fusion.cross_modal import CrossModal
    from spectral_layers.fusion.source_product import SourceProduct
    from spectral_layers.gates.advanced import Advanced
    from spectral_layers.gates.band import Band
    from spectral_layers.gates.magnitude import Magnitude
    from spectral_layers.gates.phase import Phase
    from spectral_layers.mixers.fourier import Fourier
    from spectral_layers.mixers.gated_convolution import GatedConvolution
    from spectral_layers.mixers.holographic import Holographic
    from spectral_layers.mixers.multiscale import Multiscale
    from spectral_layers.mixers.spectral_gating import SpectralGating
    from spectral_layers.mixers.spectral_product import SpectralProduct
    from spectral_layers.positions.learned import Learned
    from spectral_layers.positions.none import NoPosition
    from spectral_layers.positions.rope import Rope
    from spectral_layers.positions.sinusoidal import Sinusoidal
    from spectral_layers.sparsity.adaptive import Adaptive
    from spectral_layers.sparsity.energy import Energy
    from spectral_layers.sparsity.fixed import Fixed

__all__ = [
    "FEEDFORWARDS",
    "FILTERS",
    "FRONTENDS",
    "FUSIONS",
    "GATES",
    "MIXERS",
    "MLP",
    "POSITIONS",
    "SPARSITIES",
    "Adaptive",
    "Advanced",
    "Band",
    "CrossModal",
    "Energy",
    "FeedForward",
    "FeedForwardConfig",
    "FeedForwardOutput",
    "Filter",
    "FilterConfig",
    "FilterContext",
    "Fixed",
    "Fourier",
    "FrontEnd",
    "FrontEndConfig",
    "FrontEndOutput",
    "Fusion",
    "FusionConfig",
    "FusionOutput",
    "Gate",
    "GateConfig",
    "GateContext",
    "GatedConvolution",
    "Hankel",
    "Holographic",
    "Implicit",
    "LayerContext",
    "Learned",
    "Magnitude",
    "Mel",
    "Mixer",
    "MixerConfig",
    "MixerOutput",
    "MoE",
    "Modulation",
    "Multiresolution",
    "Multiscale",
    "NoPosition",
    "Partitioned",
    "Patches",
    "Phase",
    "Position",
    "PositionConfig",
    "RecurrentFilter",
    "Resonant",
    "Rope",
    "Rotation",
    "Rows",
    "Sinusoidal",
    "SourceProduct",
    "Sparsity",
    "SparsityConfig",
    "SpectralGating",
    "SpectralProduct",
    "SpectralView",
    "Spectrum",
    "State",
    "Stream",
    "SwiGLU",
    "Tokens",
    "fixed_weights",
]


def __getattr__(name: str) -> Any:
    """A class of parts."""
    if name not in CLASSES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(CLASSES[name]), name)
