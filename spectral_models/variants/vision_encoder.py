"""The vision encoder: embeddings of patches and of images."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator
from torch import Tensor

from spectral_core import UnsupportedInputError
from spectral_core.axes import describe
from spectral_core.config import OneOf, Scale, Width, part, problem
from spectral_layers import FRONTENDS, FrontEndConfig
from spectral_layers.frontends.base import Modality
from spectral_layers.frontends.patches import PatchesConfig
from spectral_models.data.readers import ImageReader
from spectral_models.inputs import ImageInput
from spectral_models.variants.encoding import EncoderOutput
from spectral_models.variants.plane_encoder import PlaneEncoder, PlaneEncoderConfig

_PerChannel = Annotated[tuple[Annotated[float, Field(ge=-1e6, le=1e6)], ...], Field(min_length=1, max_length=1024)]
_Positive = Annotated[tuple[Scale, ...], Field(min_length=1, max_length=1024)]


class VisionEncoder(PlaneEncoder):
    """Patches and their positions, blocks, norm, pooling. Separable mixing begins with the rows."""

    config: VisionEncoderConfig

    def forward(self, pixel_values: Tensor, attention_mask: None = None) -> EncoderOutput:
        """pixel_values: (B, C, H, W) in floating point, of about unit variance. attention_mask: must be None.

        Raises UnsupportedInputError for images of another size or kind.
        """
        if attention_mask is not None:
            raise UnsupportedInputError(
                "a vision_encoder takes no attention mask: all images of a batch have one size. Resize or pad them, or "
                "make a batch for each size."
            )
        size = self.config.image_size
        if size is not None and tuple(pixel_values.shape[-2:]) != size:
            raise UnsupportedInputError(
                f"this model takes images of {size[0]} x {size[1]} (image_size: height, width); got "
                f"{describe(pixel_values)}. Resize them, or build the model with image_size: null."
            )
        return self.encode(pixel_values)

    def input_specs(self) -> tuple[ImageInput, ...]:
        (channels, *small), size = self.small_input(), self.config.image_size
        return (ImageInput("pixel_values", small=(channels, *(size or small)), size=size),)


class VisionEncoderConfig(PlaneEncoderConfig):
    """Images to embeddings of patches and of images, mixed as a sequence or along rows and columns."""

    modality: ClassVar[Modality] = "image"

    type: Literal["vision_encoder"] = "vision_encoder"
    frontend: Annotated[FrontEndConfig, OneOf(FRONTENDS)] = part("patches")
    """Maps images to features."""
    image_size: tuple[Width, Width] | None = None
    """Height and width of all images, in pixels. Null takes any size that patches divide; training on files sets it to
    the size of its images."""
    image_mean: _PerChannel = (0.5,)
    """Subtracted from the pixels of files, which are from 0 to 1: one value, or one per channel. Input tensors are not
    normalised."""
    image_std: _Positive = (0.5,)
    """Divides the difference. With mean and std 0.5, pixels range from -1 (black) to 1 (white)."""

    @model_validator(mode="after")
    def _patches_fit(self) -> VisionEncoderConfig:
        front, size = self.frontend, self.image_size
        if not isinstance(front, PatchesConfig):
            return self
        for name in ("image_mean", "image_std"):
            if (count := len(getattr(self, name))) not in (1, front.channels):
                raise problem(
                    (name,), f"one number for all channels, or one for each of {front.channels}; got {count}."
                )
        if size and any(side % front.size for side in size):
            raise problem(
                ("image_size",),
                f"{size[0]} x {size[1]} is not a multiple of the patches' {front.size} x {front.size} pixels.",
            )
        return self

    def with_data(self, *, image_size: tuple[int, int] | None = None, **_: Any) -> VisionEncoderConfig:
        return self.model_copy(update={"image_size": image_size or self.image_size})

    def reader(self) -> ImageReader:
        """Reads files with the front end's number of ``channels``, by default 3."""
        front = self.frontend
        return ImageReader(
            channels=getattr(front, "channels", 3),
            size=self.image_size,
            multiple=front.size if isinstance(front, PatchesConfig) else 1,
            mean=self.image_mean,
            std=self.image_std,
        )

    def build(self) -> VisionEncoder:
        return VisionEncoder(self)
