"""Input specs: a model declares its inputs, so that commands, exports and checks can make tensors for it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar, Literal

import torch
from torch import Generator, Tensor

from spectral_core import ConfigError

Shape = tuple[int, ...]
"""Shape of one row of an input, without the batch axis."""
Size = tuple[int, int]
"""Height and width, in pixels."""
Kind = Literal["tokens", "image", "audio", "features"]
_LENGTH = 256


@dataclass(frozen=True)
class InputSpec(ABC):
    """Base of specs, one subclass for each kind of input.

    name: of forward's argument, or of the modality. small: the shape of a small valid input, for quick checks. masked:
    whether :meth:`SpectralModel.run` takes an attention_mask (B, L) for it, and needs it if there is padding.
    has_length: whether rows may differ in length.
    """

    kind: ClassVar[Kind]
    has_length: ClassVar[bool] = True

    name: str
    _: KW_ONLY
    small: Shape
    masked: bool = False

    @abstractmethod
    def shape(self, length: int | None = None, size: Size | None = None) -> Shape:
        """The shape of a row, by default of the usual length. Raises ConfigError if a size is required."""

    def sample(self, shape: Shape, generator: Generator | None = None) -> Tensor:
        """Random values of a shape that includes the batch axis, here of unit variance."""
        return torch.randn(shape, generator=generator)

    def example(self, batch: int, generator: Generator | None = None) -> Tensor:
        """A small random input of ``batch`` rows."""
        return self.sample((batch, *self.small), generator)


@dataclass(frozen=True)
class TokenInput(InputSpec):
    """(B, L) integers below vocab_size.

    length_limit: the longest valid row; None for no limit. max_length: tokens of a text that commands read; None for
    ``length_limit``.
    """

    kind: ClassVar[Kind] = "tokens"

    _: KW_ONLY
    vocab_size: int
    small: Shape = (12,)
    length_limit: int | None = None
    max_length: int | None = None

    def shape(self, length: int | None = None, size: Size | None = None) -> Shape:
        return (length or min(_LENGTH, self.length_limit or _LENGTH),)

    def sample(self, shape: Shape, generator: Generator | None = None) -> Tensor:
        return torch.randint(self.vocab_size, shape, generator=generator)

    def example(self, batch: int, generator: Generator | None = None) -> Tensor:
        return super().example(batch, generator)[:, : self.length_limit]


@dataclass(frozen=True)
class AudioInput(InputSpec):
    """(B, T) samples, about -1 to 1; by default one second. sample_rate: samples a second; None if any is valid."""

    kind: ClassVar[Kind] = "audio"

    _: KW_ONLY
    sample_rate: float | None = None

    def shape(self, length: int | None = None, size: Size | None = None) -> Shape:
        return (length or round(self.sample_rate or 16_000),)

    def sample(self, shape: Shape, generator: Generator | None = None) -> Tensor:
        return 0.1 * torch.randn(shape, generator=generator)


@dataclass(frozen=True)
class ImageInput(InputSpec):
    """(B, C, H, W) of about unit variance. size: height and width of all images; None if several are valid."""

    kind: ClassVar[Kind] = "image"
    has_length: ClassVar[bool] = False

    _: KW_ONLY
    size: Size | None = None

    def shape(self, length: int | None = None, size: Size | None = None) -> Shape:
        size = self.size or size
        if size is None:
            raise ConfigError("this model takes images of any size, and a program has one. Give a size, as in 224 224.")
        if min(size) < 1:
            raise ConfigError(f"an image has at least one row and one column; got a size of {size[0]} x {size[1]}.")
        return self.small[0], *size


@dataclass(frozen=True)
class FeatureInput(InputSpec):
    """(B, L, C) real numbers of about unit variance, C as in ``small``, such as time series."""

    kind: ClassVar[Kind] = "features"

    def shape(self, length: int | None = None, size: Size | None = None) -> Shape:
        return length or self.small[0], self.small[1]
