"""Mixers, filters, gates, sparsities, fusions, feed-forwards, positions and front ends, as modules and as named parts.

Example: ``GatedConvolution(dim=256)(x).y``. The module of each part is imported when its class is first accessed.
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
from spectral_layers.mixers.base import Mixer, MixerConfig, MixerOutput
from spectral_layers.positions.base import Position, PositionConfig, Rotation
from spectral_layers.registries import FEEDFORWARDS, FILTERS, FRONTENDS, FUSIONS, GATES, MIXERS, POSITIONS, SPARSITIES
from spectral_layers.report import Report
from spectral_layers.rows import Rows
from spectral_layers.sparsity.base import Sparsity, SparsityConfig
from spectral_layers.state import State
from spectral_layers.weight_cache import fixed_weights

if TYPE_CHECKING:
    from spectral_layers.feedforward.mlp import MLP as MLP
    from spectral_layers.feedforward.moe import MoE as MoE
    from spectral_layers.feedforward.swiglu import SwiGLU as SwiGLU
    from spectral_layers.filters.hankel import Hankel as Hankel
    from spectral_layers.filters.implicit import Implicit as Implicit
    from spectral_layers.filters.multiresolution import Multiresolution as Multiresolution
    from spectral_layers.filters.partitioned import Partitioned as Partitioned
    from spectral_layers.filters.resonant import Resonant as Resonant
    from spectral_layers.filters.spectrum import Spectrum as Spectrum
    from spectral_layers.frontends.mel import Mel as Mel
    from spectral_layers.frontends.patches import Patches as Patches
    from spectral_layers.frontends.tokens import Tokens as Tokens
    from spectral_layers.fusion.cross_modal import CrossModal as CrossModal
    from spectral_layers.fusion.source_product import SourceProduct as SourceProduct
    from spectral_layers.gates.advanced import Advanced as Advanced
    from spectral_layers.gates.band import Band as Band
    from spectral_layers.gates.magnitude import Magnitude as Magnitude
    from spectral_layers.gates.phase import Phase as Phase
    from spectral_layers.mixers.fourier import Fourier as Fourier
    from spectral_layers.mixers.gated_convolution import GatedConvolution as GatedConvolution
    from spectral_layers.mixers.holographic import Holographic as Holographic
    from spectral_layers.mixers.multiscale import Multiscale as Multiscale
    from spectral_layers.mixers.spectral_gating import SpectralGating as SpectralGating
    from spectral_layers.mixers.spectral_product import SpectralProduct as SpectralProduct
    from spectral_layers.positions.learned import Learned as Learned
    from spectral_layers.positions.none import NoPosition as NoPosition
    from spectral_layers.positions.rope import Rope as Rope
    from spectral_layers.positions.sinusoidal import Sinusoidal as Sinusoidal
    from spectral_layers.sparsity.adaptive import Adaptive as Adaptive
    from spectral_layers.sparsity.energy import Energy as Energy
    from spectral_layers.sparsity.fixed import Fixed as Fixed

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


def __getattr__(name: str) -> Any:
    """The class of a built-in part, imported on first access."""
    if name not in CLASSES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(CLASSES[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *CLASSES]
