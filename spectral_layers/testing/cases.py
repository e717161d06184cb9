"""What the checks run on: a part's config and the surroundings to build it in, and what can be asked of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from spectral_core import fft_backend
from spectral_core.config import PartConfig
from spectral_layers.context import FilterContext, GateContext, LayerContext
from spectral_layers.feedforward.base import FeedForward, FeedForwardConfig
from spectral_layers.filters.base import Filter, FilterConfig, RecurrentFilter
from spectral_layers.frontends.base import FrontEnd, FrontEndConfig
from spectral_layers.fusion.base import Fusion, FusionConfig
from spectral_layers.gates.base import Gate, GateConfig
from spectral_layers.mixers.base import Mixer, MixerConfig
from spectral_layers.positions.base import Position, PositionConfig
from spectral_layers.sparsity.base import Sparsity, SparsityConfig

M = TypeVar("M", bound=nn.Module)


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

    @property
    def context(self) -> LayerContext:
        """Where the part stands."""
        return LayerContext(self.hidden_dim, self.causal, fft_backend(self.fft), self.max_seq_len)

    def build(self, dtype: torch.dtype = torch.float64) -> Mixer:
        """The mixer in eval mode, its parameters randomised: what starts at zero hides what it would do."""
        return randomised(lambda: self.config.build(self.context), dtype)

    def __str__(self) -> str:
        return f"{_described(self.config)}-{'causal' if self.causal else 'bidirectional'}"


@dataclass(frozen=True)
class FilterCase:
    """A filter to check. length: of the signals its recurrence, if it has one, is compared on. fft: the model's."""

    config: FilterConfig
    channels: int = 6
    max_seq_len: int = 512
    length: int = 300
    fft: str = "auto"

    @property
    def context(self) -> FilterContext:
        """Where the part stands."""
        return FilterContext(self.channels, self.max_seq_len, fft_backend(self.fft))

    def build(self, dtype: torch.dtype = torch.float64) -> Filter:
        """The filter in eval mode, its parameters randomised."""
        return randomised(lambda: self.config.build(self.context), dtype)

    def __str__(self) -> str:
        return _described(self.config)


@dataclass(frozen=True)
class GateCase:
    """A gate to check."""

    config: GateConfig
    heads: int = 2
    head_dim: int = 4

    @property
    def context(self) -> GateContext:
        """Where the part stands."""
        return GateContext(self.heads, self.head_dim)

    def build(self, dtype: torch.dtype = torch.float64) -> Gate:
        """The gate in eval mode, its parameters randomised."""
        return randomised(lambda: self.config.build(self.context), dtype)

    def __str__(self) -> str:
        return _described(self.config)


@dataclass(frozen=True)
class SparsityCase:
    """A sparsity to check."""

    config: SparsityConfig
    heads: int = 2
    head_dim: int = 4

    @property
    def context(self) -> GateContext:
        """Where the part stands."""
        return GateContext(self.heads, self.head_dim)

    def build(self, dtype: torch.dtype = torch.float64) -> Sparsity:
        """The sparsity in eval mode, its parameters randomised."""
        return randomised(lambda: self.config.build(self.context), dtype)

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

    @property
    def context(self) -> LayerContext:
        """Where the part stands."""
        return LayerContext(self.hidden_dim, self.causal, fft_backend(self.fft))

    def build(self, dtype: torch.dtype = torch.float64) -> Fusion:
        """The fusion in eval mode, its parameters randomised."""
        return randomised(lambda: self.config.build(self.context), dtype)

    def __str__(self) -> str:
        return f"{_described(self.config)}-{'causal' if self.causal else 'bidirectional'}"


@dataclass(frozen=True)
class FeedForwardCase:
    """A feed-forward to check."""

    config: FeedForwardConfig
    hidden_dim: int = 16

    @property
    def context(self) -> LayerContext:
        """Where the part stands."""
        return LayerContext(self.hidden_dim, True, fft_backend("auto"))

    def build(self, dtype: torch.dtype = torch.float64) -> FeedForward:
        """The feed-forward in eval mode, its parameters randomised."""
        return randomised(lambda: self.config.build(self.context), dtype)

    def __str__(self) -> str:
        return _described(self.config)


@dataclass(frozen=True)
class PositionCase:
    """A position to check."""

    config: PositionConfig
    hidden_dim: int = 10
    max_seq_len: int = 64

    @property
    def context(self) -> LayerContext:
        """Where the part stands."""
        return LayerContext(self.hidden_dim, True, fft_backend("auto"), self.max_seq_len)

    def build(self, dtype: torch.dtype = torch.float64) -> Position:
        """The position in eval mode, its parameters randomised."""
        return randomised(lambda: self.config.build(self.context), dtype)

    def __str__(self) -> str:
        return _described(self.config)


@dataclass(frozen=True)
class FrontEndCase:
    """A front end to check."""

    config: FrontEndConfig
    hidden_dim: int = 16

    @property
    def context(self) -> LayerContext:
        """Where the part stands."""
        return LayerContext(self.hidden_dim, False, fft_backend("auto"))

    def build(self, dtype: torch.dtype = torch.float64) -> FrontEnd:
        """The front end in eval mode, its parameters randomised."""
        return randomised(lambda: self.config.build(self.context), dtype)

    def inputs(self, part: FrontEnd, batch: int, dtype: torch.dtype = torch.float64) -> Tensor:
        """The front end's example, floating point in that dtype."""
        inputs = part.example(batch)
        return inputs.to(dtype) if inputs.is_floating_point() else inputs

    def __str__(self) -> str:
        return _described(self.config)


def is_causal(case: MixerCase) -> bool:
    return case.causal


def streams(case: MixerCase) -> bool:
    return case.causal and case.build().streams


def is_causal_without_state(case: MixerCase) -> bool:
    return case.causal and not streams(case)


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


def part_names(config: PartConfig) -> Iterator[str]:
    """The part's name and its parts' names."""
    yield config.type
    for name in type(config).model_fields:
        value = getattr(config, name)
        for part in value if isinstance(value, tuple) else (value,):
            if isinstance(part, PartConfig):
                yield from part_names(part)


def randomised(make: Callable[[], M], dtype: torch.dtype) -> M:
    """What ``make`` makes, its parameters randomised, always alike, in eval mode."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.default_generator.manual_seed(1)
        module = make()
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return module.to(dtype).eval()


def _described(config: PartConfig) -> str:
    return "-".join(part_names(config))
