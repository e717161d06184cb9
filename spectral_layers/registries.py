"""The registries of this package, one per kind of part."""

from __future__ import annotations

from spectral_core.plugins import HOST
from spectral_core.registry import Registry
from spectral_core.version import __version__
from spectral_layers import builtin, hookspecs
from spectral_layers.feedforward.base import FeedForwardConfig
from spectral_layers.filters.base import FilterConfig
from spectral_layers.frontends.base import FrontEndConfig
from spectral_layers.fusion.base import FusionConfig
from spectral_layers.gates.base import GateConfig
from spectral_layers.mixers.base import MixerConfig
from spectral_layers.positions.base import PositionConfig
from spectral_layers.sparsity.base import SparsityConfig

_family = HOST.family("spectral_register_layers", specs=hookspecs, builtin=builtin, version=__version__)

MIXERS: Registry[MixerConfig] = _family.registry("mixer", MixerConfig)
FILTERS: Registry[FilterConfig] = _family.registry("filter", FilterConfig)
GATES: Registry[GateConfig] = _family.registry("gate", GateConfig)
SPARSITIES: Registry[SparsityConfig] = _family.registry("sparsity", SparsityConfig)
FUSIONS: Registry[FusionConfig] = _family.registry("fusion", FusionConfig)
FEEDFORWARDS: Registry[FeedForwardConfig] = _family.registry("feedforward", FeedForwardConfig)
POSITIONS: Registry[PositionConfig] = _family.registry("position", PositionConfig)
FRONTENDS: Registry[FrontEndConfig] = _family.registry("frontend", FrontEndConfig, label="front end")
