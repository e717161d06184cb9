"""What the checks run on: a part's config and the surroundings to build it in.

``*_cases(pattern)`` enumerate the registries, installed plugins included, so a part that is added is tested for free.
"""

from __future__ import annotations

import fnmatch
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from spectral_core import fft_backend
from spectral_core.config import OneOf, PartConfig
from spectral_core.registry import Registry
from spectral_layers.context import FilterContext, GateContext, LayerContext
from spectral_layers.feedforward.base import FeedForward, FeedForwardConfig
from spectral_layers.filters.base import Filter, FilterConfig, RecurrentFilter
from spectral_layers.frontends.base import FrontEnd, FrontEndConfig
from spectral_layers.fusion.base import Fusion, FusionConfig
from spectral_layers.gating.base import Gate, GateConfig
from spectral_layers.mixing.base import Mixer, MixerConfig
from spectral_layers.positions.base import Position, PositionConfig
from spectral_layers.registries import FEEDFORWARDS, FILTERS, FRONTENDS, FUSIONS, GATES, MIXERS, POSITIONS, SPARSITIES
from spectral_layers.sparsity.base import Sparsity, SparsityConfig

M = TypeVar("M", bound=nn.Module)
P = TypeVar("P", bound=PartConfig)
C = TypeVar(
    "C",
    "MixerCase",
    "FilterCase",
    "GateCase",
    "SparsityCase",
    "FusionCase",
    "FeedForwardCase",
    "PositionCase",
    "FrontEndCase",
)

# Options that bring several blocks into a short sequence.
_SMALL: dict[str, dict[str, Any]] = {
    "spectral_gating": {"block": 8, "window": 16},
    "moe": {"experts": 4},
    "cross_modal": {"modalities": ("text", "image", "audio"), "head_dim": 8},
    "source_product": {"head_dim": 4, "phases": 16},
}


@dataclass(frozen=True)
class MixerCase:
    """A mixer to check.

    block: the period of whatever it renews per block or chunk; positions and chunk sizes straddle it, and sequences
    are three blocks long. hidden_dim, max_seq_len, fft: the model it is built into.
    """

    config: MixerConfig
    causal: bool = True
    hidden_dim: int = 64
    max_seq_len: int = 512
    block: int = 64
    fft: str = "auto"

    @property
    def length(self) -> int:
        """Tokens of a sequence: more than three blocks, and more than the longest chunk."""
        return max(3 * self.block + 11, 75)

    def build(self, dtype: torch.dtype = torch.float64) -> Mixer:
        """The mixer in eval mode, its parameters randomised: what starts at zero hides what it would do."""
        context = LayerContext(self.hidden_dim, self.causal, fft_backend(self.fft), self.max_seq_len)
        return _randomised(lambda: self.config.build(context), dtype)

    def __str__(self) -> str:
        return f"{_described(self.config)}-{'causal' if self.causal else 'bidirectional'}"


@dataclass(frozen=True)
class FilterCase:
    """A filter to check. length: of the signals its recurrence, if it has one, is compared on."""

    config: FilterConfig
    channels: int = 6
    max_seq_len: int = 512
    length: int = 300

    def build(self, dtype: torch.dtype = torch.float64) -> Filter:
        """The filter in eval mode, its parameters randomised."""
        return _randomised(lambda: self.config.build(FilterContext(self.channels, self.max_seq_len)), dtype)

    def __str__(self) -> str:
        return _described(self.config)


@dataclass(frozen=True)
class GateCase:
    """A gate to check."""

    config: GateConfig
    heads: int = 2
    head_dim: int = 4

    def build(self, dtype: torch.dtype = torch.float64) -> Gate:
        """The gate in eval mode, its parameters randomised."""
        return _randomised(lambda: self.config.build(GateContext(self.heads, self.head_dim)), dtype)

    def __str__(self) -> str:
        return _described(self.config)


@dataclass(frozen=True)
class SparsityCase:
    """A sparsity to check."""

    config: SparsityConfig
    heads: int = 2
    head_dim: int = 4

    def build(self, dtype: torch.dtype = torch.float64) -> Sparsity:
        """The sparsity in eval mode, its parameters randomised."""
        return _randomised(lambda: self.config.build(GateContext(self.heads, self.head_dim)), dtype)

    def __str__(self) -> str:
        return _described(self.config)


@dataclass(frozen=True)
class FusionCase:
    """A fusion to check. Streams have unequal lengths; those of a fusion that knows no names are its target's and one
    source's.
    """

    config: FusionConfig
    causal: bool = True
    hidden_dim: int = 16
    fft: str = "auto"

    def build(self, dtype: torch.dtype = torch.float64) -> Fusion:
        """The fusion in eval mode, its parameters randomised."""
        context = LayerContext(self.hidden_dim, self.causal, fft_backend(self.fft))
        return _randomised(lambda: self.config.build(context), dtype)

    def __str__(self) -> str:
        return f"{_described(self.config)}-{'causal' if self.causal else 'bidirectional'}"


@dataclass(frozen=True)
class FeedForwardCase:
    """A feed-forward to check."""

    config: FeedForwardConfig
    hidden_dim: int = 16

    def build(self, dtype: torch.dtype = torch.float64) -> FeedForward:
        """The feed-forward in eval mode, its parameters randomised."""
        context = LayerContext(self.hidden_dim, True, fft_backend("auto"))
        return _randomised(lambda: self.config.build(context), dtype)

    def __str__(self) -> str:
        return _described(self.config)


@dataclass(frozen=True)
class PositionCase:
    """A position to check."""

    config: PositionConfig
    hidden_dim: int = 10
    max_seq_len: int = 64

    def build(self, dtype: torch.dtype = torch.float64) -> Position:
        """The position in eval mode, its parameters randomised."""
        context = LayerContext(self.hidden_dim, True, fft_backend("auto"), self.max_seq_len)
        return _randomised(lambda: self.config.build(context), dtype)

    def __str__(self) -> str:
        return _described(self.config)


@dataclass(frozen=True)
class FrontEndCase:
    """A front end to check."""

    config: FrontEndConfig
    hidden_dim: int = 16

    def build(self, dtype: torch.dtype = torch.float64) -> FrontEnd:
        """The front end in eval mode, its parameters randomised."""
        context = LayerContext(self.hidden_dim, False, fft_backend("auto"))
        return _randomised(lambda: self.config.build(context), dtype)

    def inputs(self, part: FrontEnd, batch: int, dtype: torch.dtype = torch.float64) -> Tensor:
        """The front end's example, floating point in that dtype."""
        inputs = part.example(batch)
        return inputs.to(dtype) if inputs.is_floating_point() else inputs

    def __str__(self) -> str:
        return _described(self.config)


def mixer_cases(pattern: str = "*") -> list[MixerCase]:
    """Every registered mixer with each registered part it can take, in each of its directions.

    pattern: keeps the cases in which some part's name matches: ``acme/*`` gives that plugin's mixers with all parts,
    and all mixers with that plugin's parts. Parts without a working default need a :class:`MixerCase` by hand.
    """
    found = []
    for entry in MIXERS:
        for config in _variants(entry.load()):
            block = getattr(config, "block", 64)
            found += [
                MixerCase(config, causal=direction == "causal", block=block) for direction in sorted(config.directions)
            ]
    return _matching(found, pattern)


def filter_cases(pattern: str = "*") -> list[FilterCase]:
    """Every registered filter whose name matches."""
    return _matching([FilterCase(_small(entry.load())) for entry in FILTERS], pattern)


def gate_cases(pattern: str = "*") -> list[GateCase]:
    """Every registered gate whose name matches."""
    return _matching([GateCase(_small(entry.load())) for entry in GATES], pattern)


def sparsity_cases(pattern: str = "*") -> list[SparsityCase]:
    """Every registered sparsity whose name matches."""
    return _matching([SparsityCase(_small(entry.load())) for entry in SPARSITIES], pattern)


def fusion_cases(pattern: str = "*") -> list[FusionCase]:
    """Every registered fusion whose name matches, on each kind of target it can have."""
    found = []
    for entry in FUSIONS:
        config = _small(entry.load())
        found += [FusionCase(config, causal=direction == "causal") for direction in sorted(config.directions)]
    return _matching(found, pattern)


def feedforward_cases(pattern: str = "*") -> list[FeedForwardCase]:
    """Every registered feed-forward whose name matches."""
    return _matching([FeedForwardCase(_small(entry.load())) for entry in FEEDFORWARDS], pattern)


def position_cases(pattern: str = "*") -> list[PositionCase]:
    """Every registered position whose name matches."""
    return _matching([PositionCase(_small(entry.load())) for entry in POSITIONS], pattern)


def frontend_cases(pattern: str = "*") -> list[FrontEndCase]:
    """Every registered front end whose name matches."""
    return _matching([FrontEndCase(_small(entry.load())) for entry in FRONTENDS], pattern)


def is_causal(case: MixerCase) -> bool:
    return case.causal


def streams(case: MixerCase) -> bool:
    return case.causal and case.build().streams


def cannot_stream(case: MixerCase) -> bool:
    return not streams(case)


def keeps_segments(case: MixerCase) -> bool:
    return case.build().keeps_segments


def mixes_segments(case: MixerCase) -> bool:
    return not keeps_segments(case)


def is_limited(case: MixerCase) -> bool:
    return case.build().length_limit is not None


def is_limited_and_streams(case: MixerCase) -> bool:
    return is_limited(case) and streams(case)


def has_limit(case: FilterCase) -> bool:
    return case.build().length_limit is not None


def has_support(case: FilterCase) -> bool:
    return case.build().support is not None


def is_recurrent(case: FilterCase) -> bool:
    return isinstance(case.build(), RecurrentFilter)


def _randomised(make: Callable[[], M], dtype: torch.dtype) -> M:
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.default_generator.manual_seed(1)
        module = make()
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return module.to(dtype).eval()


def _variants(kind: type[MixerConfig]) -> Iterator[MixerConfig]:
    """The mixer with its defaults, and with each other part in each field that takes one."""
    default = _small(kind)
    yield default
    for name, field in kind.model_fields.items():
        several, registry = _registry_of(field.annotation, field.metadata)
        if registry is None or registry is MIXERS:
            continue
        standing = getattr(default, name)
        for other in registry:
            part = _small(other.load())
            value = (part,) if several else part
            if value != standing:
                yield default.model_copy(update={name: value})


def _registry_of(annotation: Any, metadata: list[Any]) -> tuple[bool, Registry[Any] | None]:
    """The registry an open field resolves through, and whether the field takes several parts."""
    for note in metadata:
        if isinstance(note, OneOf):
            return False, note.registry
    for inner in typing.get_args(annotation):
        for note in getattr(inner, "__metadata__", ()):
            if isinstance(note, OneOf):
                return typing.get_origin(annotation) is tuple, note.registry
    return False, None


def _small(kind: type[P]) -> P:
    return kind.model_validate(_SMALL.get(kind.model_fields["type"].default, {}))


def _described(config: PartConfig) -> str:
    return "-".join(_names(config))


def _names(config: PartConfig) -> Iterator[str]:
    """The part's name and its parts' names."""
    yield config.type
    for name in type(config).model_fields:
        value = getattr(config, name)
        for part in value if isinstance(value, tuple) else (value,):
            if isinstance(part, PartConfig):
                yield from _names(part)


def _matching(cases: list[C], pattern: str) -> list[C]:
    found = [case for case in cases if any(fnmatch.fnmatchcase(name, pattern) for name in _names(case.config))]
    if not found:
        raise ValueError(f"no registered part matches {pattern!r}, so nothing would be checked. Is its plugin loaded?")
    return found
