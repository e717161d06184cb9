"""The cases that checks run on, and predicates that select them for a check."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

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
class PartCase(ABC, Generic[M]):
    """A part to check: its config and what it is built into."""

    config: Any

    @abstractmethod
    def context(self) -> Any:
        """What the config's ``build`` takes."""

    def build(self, dtype: torch.dtype = torch.float64) -> M:
        """The part in eval mode, with random parameters: a part that starts at zero would hide its faults."""
        return self.randomised(lambda: self.config.build(self.context()), dtype)

    @staticmethod
    def randomised(make: Callable[[], M], dtype: torch.dtype = torch.float64) -> M:
        """The part that ``make`` returns, in eval mode, with random parameters from a fixed seed."""
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.default_generator.manual_seed(1)
            module = make()
            for parameter in module.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
        return module.to(dtype).eval()

    def __str__(self) -> str:
        return "-".join(part_names(self.config))


@dataclass(frozen=True)
class MixerCase(PartCase[Mixer]):
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

    def context(self) -> LayerContext:
        return LayerContext(self.hidden_dim, self.causal, fft_backend(self.fft), self.max_seq_len)

    def __str__(self) -> str:
        return f"{super().__str__()}-{'causal' if self.causal else 'bidirectional'}"


@dataclass(frozen=True)
class FilterCase(PartCase[Filter]):
    """A filter to check. length: of the signals on which a recurrence is compared. fft: the model's backend."""

    config: FilterConfig
    channels: int = 6
    max_seq_len: int = 512
    length: int = 300
    fft: str = "auto"

    def context(self) -> FilterContext:
        return FilterContext(self.channels, self.max_seq_len, fft_backend(self.fft))


@dataclass(frozen=True)
class GateCase(PartCase[Gate]):
    """A gate to check."""

    config: GateConfig
    heads: int = 2
    head_dim: int = 4

    def context(self) -> GateContext:
        return GateContext(self.heads, self.head_dim)


@dataclass(frozen=True)
class SparsityCase(PartCase[Sparsity]):
    """A sparsity to check."""

    config: SparsityConfig
    heads: int = 2
    head_dim: int = 4

    def context(self) -> GateContext:
        return GateContext(self.heads, self.head_dim)


@dataclass(frozen=True)
class FusionCase(PartCase[Fusion]):
    """A fusion to check. Streams have unequal lengths; a fusion without names gets a target and one source."""

    block: ClassVar[int] = 8
    length: ClassVar[int] = 35
    config: FusionConfig
    causal: bool = True
    hidden_dim: int = 16
    fft: str = "auto"

    def context(self) -> LayerContext:
        return LayerContext(self.hidden_dim, self.causal, fft_backend(self.fft))

    def __str__(self) -> str:
        return f"{super().__str__()}-{'causal' if self.causal else 'bidirectional'}"


@dataclass(frozen=True)
class FeedForwardCase(PartCase[FeedForward]):
    """A feed-forward to check."""

    config: FeedForwardConfig
    hidden_dim: int = 16

    def context(self) -> LayerContext:
        return LayerContext(self.hidden_dim, True, fft_backend("auto"))


@dataclass(frozen=True)
class PositionCase(PartCase[Position]):
    """A position to check."""

    config: PositionConfig
    hidden_dim: int = 10
    max_seq_len: int = 64

    def context(self) -> LayerContext:
        return LayerContext(self.hidden_dim, True, fft_backend("auto"), self.max_seq_len)


@dataclass(frozen=True)
class FrontEndCase(PartCase[FrontEnd]):
    """A front end to check."""

    config: FrontEndConfig
    hidden_dim: int = 16

    def context(self) -> LayerContext:
        return LayerContext(self.hidden_dim, False, fft_backend("auto"))

    def inputs(self, part: FrontEnd, batch: int, dtype: torch.dtype = torch.float64) -> Tensor:
        """The front end's example, in that dtype if it is floating point."""
        inputs = part.example(batch)
        return inputs.to(dtype) if inputs.is_floating_point() else inputs


def has_parameters(case: PartCase[Any]) -> bool:
    return any(True for _ in case.build().parameters())


def is_causal(case: MixerCase | FusionCase) -> bool:
    return case.causal


def streams(case: MixerCase | FusionCase) -> bool:
    return case.causal and case.build().streams


def cannot_stream(case: MixerCase | FusionCase) -> bool:
    return not streams(case)


def is_limited(case: MixerCase | FilterCase | PositionCase) -> bool:
    return case.build().length_limit is not None


def is_recurrent(case: FilterCase) -> bool:
    return isinstance(case.build(), RecurrentFilter)


def part_names(config: PartConfig) -> Iterator[str]:
    """The name of the part and those of the parts inside it."""
    yield config.type
    for name in type(config).model_fields:
        value = getattr(config, name)
        for part in value if isinstance(value, tuple) else (value,):
            if isinstance(part, PartConfig):
                yield from part_names(part)
