"""The vision encoder: images in, an embedding of each patch and of the whole out."""

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
    """Patches and their places, blocks, norm, pooling. Separable mixing goes along rows first."""

    def __init__(self, config: VisionEncoderConfig) -> None:
        super().__init__(config)
        self.config: VisionEncoderConfig

    def forward(self, pixel_values: Tensor, attention_mask: None = None) -> EncoderOutput:
        """pixel_values: (B, C, H, W) in floating point, of about unit variance. Images take no attention mask.

        Raises UnsupportedInputError for images of another size or kind.
        """
        if attention_mask is not None:
            raise UnsupportedInputError(
                "a vision_encoder takes no attention mask: images of a batch have one size. Resize or pad them, or "
                "give images of another size in a batch of their own."
            )
        size = self.config.image_size
        if size is not None and tuple(pixel_values.shape[-2:]) != size:
            raise UnsupportedInputError(
                f"this model takes images of {size[0]} x {size[1]} (image_size: height, width); got "
                f"{describe(pixel_values)}. Resize them, or build the model with image_size: null."
            )
        return self.encode(pixel_values)

    def input_specs(self) -> tuple[ImageInput, ...]:
        channels, *size = self.small_input()
        return (
            ImageInput(
                "pixel_values", small=(channels, *(self.config.image_size or size)), size=self.config.image_size
            ),
        )


class VisionEncoderConfig(PlaneEncoderConfig):
    """Images to embeddings, of patches and of wholes, mixed as a sequence or along rows and columns."""

    modality: ClassVar[Modality] = "image"

    type: Literal["vision_encoder"] = "vision_encoder"
    frontend: Annotated[FrontEndConfig, OneOf(FRONTENDS)] = part("patches")
    """What makes features of images."""
    image_size: tuple[Width, Width] | None = None
    """Height and width all images must have, in pixels; null takes any that patches divide, until training on files
    writes theirs here."""
    image_mean: _PerChannel = (0.5,)
    """What is taken from pixels, from 0 to 1, of files: for all channels, or for each. Tensors go in as they are."""
    image_std: _Positive = (0.5,)
    """What the rest is then divided by: with both 0.5, pixels run from -1 for black to 1 for white."""

    @model_validator(mode="after")
    def _patches_fit(self) -> VisionEncoderConfig:
        front = self.frontend
        channels = front.channels if isinstance(front, PatchesConfig) else None
        for name in ("image_mean", "image_std"):
            if channels is not None and len(found := getattr(self, name)) not in (1, channels):
                raise problem((name,), f"one number for all channels or {channels}, one for each; got {len(found)}.")
        if self.image_size and isinstance(front, PatchesConfig) and any(side % front.size for side in self.image_size):
            height, width = self.image_size
            raise problem(
                ("image_size",), f"{height} x {width} leaves a rest: patches are {front.size} x {front.size} pixels."
            )
        return self

    def with_data(self, *, image_size: tuple[int, int] | None = None, **_: Any) -> VisionEncoderConfig:
        return self.model_copy(update={"image_size": image_size or self.image_size})

    def reader(self) -> ImageReader:
        """For files with as many channels as the front end's ``channels``; in colour if it does not say."""
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
