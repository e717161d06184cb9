"""Pictures for Hugging Face's pipelines, made into numbers as training made them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from PIL import Image
from transformers import BatchFeature
from transformers.image_processing_utils import BaseImageProcessor
from transformers.image_utils import make_flat_list_of_images, to_numpy_array

from spectral_models.data.readers import PictureReader


class SpectralImageProcessor(BaseImageProcessor):  # type: ignore[misc]  # transformers carries no annotations mypy can follow
    """PIL pictures, or arrays of bytes (H, W) or (H, W, 3), to pixel_values, as :class:`PictureReader` reads files.

    A checkpoint of a model of pictures holds its settings, and AutoImageProcessor finds it there. Nothing is resized:
    DataError for pictures of another size.
    """

    model_input_names: ClassVar[list[str]] = ["pixel_values"]

    def __init__(
        self,
        channels: int = 3,
        size: Mapping[str, int] | None = None,
        image_mean: Sequence[float] = (0.5,),
        image_std: Sequence[float] = (0.5,),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.channels = channels
        self.size = None if size is None else dict(size)
        self.image_mean, self.image_std = list(image_mean), list(image_std)

    def preprocess(self, images: Any, return_tensors: str | None = None, **options: Any) -> BatchFeature:
        """images: one or several. Raises DataError as the reader does."""
        size = None if self.size is None else (self.size["height"], self.size["width"])
        reader = PictureReader(self.channels, size, mean=tuple(self.image_mean), std=tuple(self.image_std))
        pictures = [
            image if isinstance(image, Image.Image) else Image.fromarray(to_numpy_array(image))
            for image in make_flat_list_of_images(images)
        ]
        values = [reader.numbers(picture, f"number {place}") for place, picture in enumerate(pictures, start=1)]
        return BatchFeature({"pixel_values": [value.numpy() for value in values]}, tensor_type=return_tensors)
