"""Hugging Face's image processor of our models: converts images as training does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from transformers import BatchFeature
from transformers.image_processing_utils import BaseImageProcessor

from spectral_models.data.readers import ImageReader
from spectral_models.errors import DataError

_CHANNELS = (1, 3, 4)


class SpectralImageProcessor(BaseImageProcessor):  # type: ignore[misc]  # transformers carries no annotations mypy can follow
    """Images to pixel_values, as :class:`ImageReader` reads files.

    Images are PIL images, or arrays and tensors of bytes, of floats from 0 to 1 or of booleans, of shape (H, W),
    (H, W, C) or (C, H, W) with 1, 3 or 4 channels, and batches of these. Its settings are in the checkpoint of a model
    of images, where AutoImageProcessor finds them. Raises DataError for images of another size, since nothing is
    resized, and for ambiguous shapes.
    """

    model_input_names: ClassVar[list[str]] = ["pixel_values"]

    def __init__(
        self,
        channels: int = 3,
        size: Mapping[str, int] | int | None = None,
        image_mean: Sequence[float] = (0.5,),
        image_std: Sequence[float] = (0.5,),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.channels = channels
        if isinstance(size, int):
            size = {"height": size, "width": size}
        if size is not None and set(size) != {"height", "width"}:
            raise DataError(f"size is a height and a width, or one number for both; got {size!r}. Nothing is resized.")
        self.size = None if size is None else dict(size)
        self.image_mean, self.image_std = list(image_mean), list(image_std)

    @classmethod
    def register_for_auto_class(cls, auto_class: str = "AutoImageProcessor") -> None:
        """Does nothing, as for models."""

    def preprocess(
        self, images: Any, return_tensors: str | None = None, input_data_format: str | None = None, **options: Any
    ) -> BatchFeature:
        """images: one or several. input_data_format: of arrays, channels_first or channels_last; guessed by default.

        Raises DataError as the reader does, and for options that would change the values.
        """
        for name, value in options.items():
            if value not in (None, name in ("do_rescale", "do_normalize", "do_convert_rgb")):
                raise DataError(
                    f"{name}={value!r} is not possible: images are scaled as the model was trained, and nothing "
                    "else. Leave it out, and change the images before."
                )
        size = None if self.size is None else (self.size["height"], self.size["width"])
        reader = ImageReader(self.channels, size, mean=tuple(self.image_mean), std=tuple(self.image_std))
        values = []
        for place, image in enumerate(_each(images), start=1):
            name = f"number {place}"
            if isinstance(image, np.ndarray):
                image = _from_array(image, name, input_data_format, size)
            to_numbers = reader.standardised if isinstance(image, Tensor) else reader.numbers
            values.append(to_numbers(image, name))
        shapes = {tuple(value.shape[1:]) for value in values}
        if not values or (return_tensors is not None and len(shapes) > 1):
            found = f"images of {' and '.join(f'{h} x {w}' for h, w in sorted(shapes))}" if values else "no images"
            raise DataError(f"a batch has images of one size, and at least one; got {found}.")
        return BatchFeature({"pixel_values": [value.numpy() for value in values]}, tensor_type=return_tensors)


def _each(images: Any) -> Iterator[Image.Image | NDArray[Any]]:
    """The images in batches and nested lists."""
    if isinstance(images, Tensor):
        images = images.detach().cpu()
        images = (images.float() if images.is_floating_point() else images).numpy()
    if isinstance(images, list | tuple):
        for image in images:
            yield from _each(image)
    elif isinstance(images, np.ndarray) and images.ndim == 4:
        yield from images
    elif isinstance(images, Image.Image) or (isinstance(images, np.ndarray) and images.ndim in (2, 3)):
        yield images
    else:
        what = f"an array of shape {images.shape}" if isinstance(images, np.ndarray) else f"{type(images).__name__}"
        raise DataError(
            f"an image is one of PIL's, or an array or tensor (H, W), (H, W, C) or (C, H, W); got {what}. "
            "PIL.Image.open(PATH) opens a file."
        )


def _from_array(
    array: NDArray[Any], name: str, channels: str | None, size: tuple[int, int] | None
) -> Image.Image | Tensor:
    """Bytes as a PIL image, floats as a tensor (H, W, C). channels: channels_first, channels_last or unknown."""
    if array.ndim == 2:
        array = array[..., None]
    elif _is_first(array.shape, name, channels, size):
        array = np.moveaxis(array, 0, 2)
    if not array.size or array.shape[2] not in _CHANNELS:
        raise DataError(f"{name} is an array (height, width, channels) {array.shape}; channels are 1, 3 or 4.")
    if array.dtype in (np.uint8, bool):
        octets = array.astype(np.uint8) * (255 if array.dtype == bool else 1)
        return Image.fromarray(octets[..., 0] if octets.shape[2] == 1 else octets)
    if not np.issubdtype(array.dtype, np.floating):
        raise DataError(
            f"{name} is an array of {array.dtype}; bytes (uint8), floats from 0 to 1 and booleans have a scale. "
            "Convert it to one of them."
        )
    low, high = array.min(), array.max()
    if not (low >= 0 and high <= 1):  # NaN is neither
        raise DataError(
            f"{name} is an array of floats from {low:g} to {high:g}, and floats run from 0 to 1. Divide pixels "
            "by 255, and undo a mean and deviation: the model's are applied here."
        )
    return torch.from_numpy(array.astype(np.float32))


def _is_first(shape: tuple[int, ...], name: str, channels: str | None, size: tuple[int, int] | None) -> bool:
    """Whether an array of three axes has its channels first, by ``channels``, by its shape, or by the image size."""
    if channels is not None:
        if str(channels) not in ("channels_first", "channels_last"):
            raise DataError(f"input_data_format is channels_first or channels_last; got {channels!r}.")
        return str(channels) == "channels_first"
    # 1 or 3 channels are likelier than 4.
    first, last = (axis in (1, 3) for axis in (shape[0], shape[2]))
    if not (first or last):
        first, last = (axis == 4 for axis in (shape[0], shape[2]))
    if first and last and size is not None:
        first, last = shape[1:] == size, shape[:2] == size
    if first and last:
        raise DataError(
            f"{name} is an array of shape {shape}, whose channels are its first axis or its last. Say which: "
            "input_data_format='channels_first' or 'channels_last'."
        )
    return first
