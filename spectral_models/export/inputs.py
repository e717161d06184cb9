"""The kinds of inputs a program has, by what reads them: their shapes, and random ones to check a program on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Generator, Tensor, nn

from spectral_core import ConfigError
from spectral_models.variants.audio_encoder import AudioEncoder
from spectral_models.variants.encoder import TextEncoder
from spectral_models.variants.language_model import LanguageModel
from spectral_models.variants.vision_encoder import VisionEncoder

Shape = tuple[int, ...]
Size = tuple[int, int]
_LENGTH = 256


class Input(ABC):
    """Base of inputs. name: what one is called that stands for itself. line: whether it has a length."""

    name: ClassVar[str]
    line: ClassVar[bool] = True

    @abstractmethod
    def shape(self, length: int | None, size: Size | None) -> Shape:
        """Behind the batch, of that length or size, or of the default."""

    @abstractmethod
    def sample(self, shape: Shape, generator: Generator) -> Tensor:
        """One of that shape, the batch included."""


class Ids(Input):
    """Tokens, 256 by default."""

    name = "input_ids"

    def __init__(self, reader: TextEncoder | LanguageModel) -> None:
        self.vocab_size = reader.config.vocab_size
        self.length_limit = reader.length_limit

    def shape(self, length: int | None, size: Size | None) -> Shape:
        return (length or min(_LENGTH, self.length_limit or _LENGTH),)

    def sample(self, shape: Shape, generator: Generator) -> Tensor:
        return torch.randint(self.vocab_size, shape, generator=generator)


class Sound(Input):
    """Samples, a second by default."""

    name = "input_values"

    def __init__(self, reader: AudioEncoder) -> None:
        self.second = round(getattr(reader.config.frontend, "sample_rate", 16_000))

    def shape(self, length: int | None, size: Size | None) -> Shape:
        return (length or self.second,)

    def sample(self, shape: Shape, generator: Generator) -> Tensor:
        return 0.1 * torch.randn(shape, generator=generator)


class Pictures(Input):
    """Channels, height and width, by default the model's image_size."""

    name = "pixel_values"
    line = False

    def __init__(self, reader: VisionEncoder) -> None:
        self.channels: int = reader.frontend.example(1).shape[1]
        self.image_size = reader.config.image_size

    def shape(self, length: int | None, size: Size | None) -> Shape:
        size = self.image_size or size
        if size is None:
            raise ConfigError(
                "this model takes pictures of any size, and a program has one: give a size, as in 224 224."
            )
        if min(size) < 1:
            raise ConfigError(f"a picture has at least one row and one column; got a size of {size[0]} x {size[1]}.")
        return self.channels, *size

    def sample(self, shape: Shape, generator: Generator) -> Tensor:
        return torch.randn(shape, generator=generator)


def input_of(reader: nn.Module) -> Input:
    """What a model, or one that it is made of, reads."""
    if isinstance(reader, TextEncoder | LanguageModel):
        return Ids(reader)
    if isinstance(reader, AudioEncoder):
        return Sound(reader)
    if isinstance(reader, VisionEncoder):
        return Pictures(reader)
    raise ConfigError(
        f"{type(reader).__name__} cannot be exported: of encoders only encoder, audio_encoder and vision_encoder can."
    )
