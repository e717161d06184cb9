"""Images in square patches, one token each."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from spectral_core.axes import describe
from spectral_core.config import Width
from spectral_core.errors import UnsupportedInputError
from spectral_layers.context import LayerContext
from spectral_layers.frontends.base import FrontEnd, FrontEndConfig, FrontEndOutput, Modality


class PatchesConfig(FrontEndConfig):
    """Images in square patches, one token each, on a grid."""

    modality: ClassVar[Modality] = "image"

    type: Literal["patches"] = "patches"
    size: Width = 16
    """Pixels along each side of a patch."""
    channels: Width = 3
    """Channels of an image: 3 for colour, 1 for grey."""


class Patches(FrontEnd[PatchesConfig]):
    """x[r, c] = W patch[r, c] + b: one token per size × size square, row by row; a convolution with stride ``size``.

    Initial features have unit variance for independent pixels of unit variance. O(H W C D).
    Dosovitskiy et al., "An image is worth 16x16 words: transformers for image recognition at scale", 2021.
    """

    takes_lengths: ClassVar[bool] = False

    def setup(self, config: PatchesConfig, context: LayerContext) -> None:
        self.size, self.channels = size, channels = config.size, config.channels
        self.proj = nn.Conv2d(channels, context.hidden_dim, size, stride=size)
        nn.init.normal_(self.proj.weight, std=(channels * size * size) ** -0.5)
        assert self.proj.bias is not None
        nn.init.zeros_(self.proj.bias)

    def forward(self, inputs: Tensor, lengths: Tensor | None = None) -> FrontEndOutput:
        """inputs: (B, C, H, W) floating point, H and W multiples of the patch size."""
        if inputs.dim() != 4 or inputs.shape[1] != self.channels or not inputs.is_floating_point():
            raise UnsupportedInputError(
                f"images are (B, C, H, W) floats with C = {self.channels}; got {describe(inputs)}. "
                "Scale integer pixels to about unit variance first."
            )
        height, width = inputs.shape[2:]
        if height < 1 or width < 1 or height % self.size or width % self.size:
            raise UnsupportedInputError(
                f"height and width of images must be multiples of the patch size {self.size}; got {height} x {width}. "
                "Resize or pad the images."
            )
        self.check_lengths(inputs, lengths)
        x = self.proj(inputs).flatten(2).transpose(1, 2)
        return FrontEndOutput(x, grid=(height // self.size, width // self.size))

    def example(self, batch: int) -> Tensor:
        return torch.randn(batch, self.channels, 2 * self.size, 3 * self.size)
