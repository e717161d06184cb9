"""Reads images and audio files as model inputs; training, commands and pipelines all use these readers."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from spectral_models.data.wav import read_wav
from spectral_models.errors import DataError, needs_extra

if TYPE_CHECKING:
    from PIL.Image import Image

    from spectral_models.config import ModelConfig


@dataclass(frozen=True, slots=True)
class File:
    """A file to read. name: its name in errors. content: returns its bytes or raises OSError."""

    name: str
    content: Callable[[], bytes]

    @classmethod
    def at(cls, path: str | Path) -> File:
        return cls(str(path), partial(Path.read_bytes, Path(path)))

    def read(self, what: str) -> bytes:
        """The file's bytes. Raises DataError if it cannot be read. what: the expected kind of file, for the message."""
        try:
            return self.content()
        except OSError as error:
            raise DataError(f"cannot read the {what} {self.name}: {error.strerror or error}.") from None


_GREY = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in grey levels: ITU-R BT.601, as in Pillow."""


@dataclass(frozen=True, slots=True)
class ImageReader:
    """(pixel / 255 - mean) / std for each channel of an image.

    EXIF orientation is applied, transparency is dropped, and only the first frame or page is read.

    channels: 1 for grey, 3 for red, green, blue. size: required height and width; None for any multiples of
    ``multiple``. mean, std: one value for all channels, or one for each.
    """

    what: ClassVar[str] = "image"
    modality: ClassVar[str] = "image"

    channels: int
    size: tuple[int, int] | None = None
    multiple: int = 1
    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.5,)

    def __call__(self, file: File) -> Tensor:
        """(C, H, W). Raises DataError, with the file's name, for unreadable images and for another size."""
        with needs_extra("images need", "train", DataError):
            from PIL import Image, UnidentifiedImageError
        content = io.BytesIO(file.read(self.what))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", Image.DecompressionBombWarning)
                image = Image.open(content)
        except UnidentifiedImageError:
            raise DataError(f"{file.name} is no image that Pillow reads. Convert it, or leave it out.") from None
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise DataError(f"the image {file.name} is too large: {error} Make it smaller.") from None
        except Exception as error:  # Pillow's readers raise all kinds on bad files
            raise _damaged(file.name, error) from None
        with image:
            return self.numbers(image, file.name)

    def numbers(self, image: Image, name: str) -> Tensor:
        """(C, H, W) of an open image. name: its name in errors."""
        if image.mode == "F" or image.mode.startswith("I"):  # Pillow would clip values above 255
            raise DataError(
                f"the image {name} has more than 8 bits a channel (Pillow's mode {image.mode}), and 8 are read. "
                f"Convert it: magick {name} -depth 8 OUT.png."
            )
        if self.size not in (None, (image.height, image.width), image.size):  # before decoding a possibly huge image
            self._check_size(image.height, image.width, name)
        try:
            pixels = np.array(_upright(image, "L" if self.channels == 1 else "RGB"), dtype=np.float32)
        except Exception as error:  # some readers find damage only when they decode
            raise _damaged(name, error) from None
        return self.standardised(torch.from_numpy(pixels).reshape(*pixels.shape[:2], -1) / 255, name)

    def standardised(self, pixels: Tensor, name: str) -> Tensor:
        """(C, H, W) of pixels (H, W, 1, 3 or 4) from 0 to 1; the fourth channel, transparency, is dropped."""
        if self.channels not in (1, 3):
            raise DataError(f"this model's images have {self.channels} channels; files have 1 (grey) or 3 (colour).")
        self._check_size(pixels.shape[0], pixels.shape[1], name)
        pixels = pixels[..., :3]
        if pixels.shape[-1] > self.channels:
            pixels = pixels @ pixels.new_tensor(_GREY)[:, None]
        planes = pixels.expand(*pixels.shape[:2], self.channels).permute(2, 0, 1)
        mean, std = (torch.tensor(values)[:, None, None] for values in (self.mean, self.std))
        return ((planes - mean) / std).contiguous()

    def like(self, file: File) -> ImageReader:
        """A copy of the reader that requires the size of this image."""
        height, width = self(file).shape[1:]
        return replace(self, size=(height, width))

    def settings(self) -> dict[str, Any]:
        """Settings from which transformers' AutoImageProcessor creates our image processor."""
        size = {} if self.size is None else {"size": {"height": self.size[0], "width": self.size[1]}}
        scaling = {"image_mean": list(self.mean), "image_std": list(self.std)}
        return {"image_processor_type": "SpectralImageProcessor", "channels": self.channels, **size, **scaling}

    def _check_size(self, height: int, width: int, name: str) -> None:
        wanted, new = self.size, "WIDTHxHEIGHT"
        if wanted is not None and (height, width) != wanted:
            allowed, new = f"{wanted[0]} x {wanted[1]}", f"{wanted[1]}x{wanted[0]}"
        elif height % self.multiple or width % self.multiple:
            allowed = f"multiples of {self.multiple}, the size of its patches"
        else:
            return
        raise DataError(
            f"{name} is {height} x {width} pixels (height, width), and the model takes images of {allowed}; nothing "
            f"is resized here. Convert it: magick {name} -resize {new}! OUT.png."
        )


def _upright(image: Image, mode: str) -> Image:
    """The image after its EXIF orientation, in mode L or RGB."""
    from PIL import ImageOps

    image.load()
    image = ImageOps.exif_transpose(image)
    # Converted directly, these modes fail, lose their colours, or warn about transparency.
    between = {"LAB": "RGB", "La": "LA", "RGBa": "RGBA", "P": "RGBA" if "transparency" in image.info else "P"}
    return image.convert(between.get(image.mode, image.mode)).convert(mode)


def _damaged(name: str, error: Exception) -> DataError:
    return DataError(f"the image {name} is damaged: {error}. Repair it, or leave it out.")


@dataclass(frozen=True, slots=True)
class AudioReader:
    """The mean over the channels of a WAV file, full scale 1.

    sample_rate: required rate in Hz; None for any.
    """

    what: ClassVar[str] = "recording"
    modality: ClassVar[str] = "audio"

    sample_rate: float | None = None

    def __call__(self, file: File) -> Tensor:
        """(T,). Raises DataError, with the file's name, for another rate and as :func:`read_wav` does."""
        samples, rate = read_wav(file.read(self.what), file.name)
        if self.sample_rate is not None and rate != self.sample_rate:
            raise DataError(
                f"{file.name} has {rate} samples a second, and this model needs {self.sample_rate:g}; nothing is "
                f"resampled here. Convert it: sox {file.name} -r {self.sample_rate:g} OUT.wav."
            )
        return torch.from_numpy(samples.mean(1).astype(np.float32))

    def like(self, file: File) -> AudioReader:
        """The reader itself: waveforms in a batch may differ in length."""
        return self

    def settings(self) -> dict[str, Any]:
        """Settings of transformers' feature extractor that leaves samples unchanged."""
        if self.sample_rate is None:
            return {}
        kind = {"feature_extractor_type": "Wav2Vec2FeatureExtractor", "do_normalize": False}
        return {**kind, "sampling_rate": round(self.sample_rate), "return_attention_mask": True}


Reader = ImageReader | AudioReader


def file_reader(config: ModelConfig) -> Reader:
    """The model's reader of files. Raises DataError if its config has none."""
    reader = config.reader()
    if reader is None:
        raise DataError(f"a {config.type} reads no files: its config has no reader() of images or recordings.")
    return reader
